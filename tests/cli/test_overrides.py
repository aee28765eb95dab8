"""`key=value` words as people type them: values that are no Hydra syntax are taken as they are, in every command."""

import sys
from pathlib import Path

import pytest
from helpers.commands import error_of
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from vla_policy.cli import train
from vla_policy.cli.eval import main as eval_main
from vla_policy.cli.help import checkpoint_arguments, config_parser
from vla_policy.interfaces import InputError
from vla_policy.jobs import train as train_job
from vla_policy.utils.configuration import load_config, options, quoted_words

PLAIN = [
    "/x/my data",
    "/x/data (v2)",
    "/x/lr=0.1",
    "/x/a,b",
    "/x/müller",
    "/x/用户",
    "/x/it's",
    '/x/the "best"',
    "/x/a&b;c!d#1",
    "/x/a%b",
    "/x/user@host",
    "/x/[draft",
    "/x/{a}",
    "C:\\data\\it's\\",
    "push, then stop",
    "put the T's stem left (gently)",
    "range(1,3)",
    "007",
    "1e3",
    "2024_01_31",
    "true",
    " /x/a ",
    " 7 ",
]


@pytest.mark.parametrize("value", PLAIN)
def test_a_value_is_taken_as_it_is(value: str) -> None:
    assert load_config("train", [f"data.root={value}"]).data.root == value
    config = load_config("eval", ["scene=pusht_language", f"scene.instruction={value}", f"out={value}"])
    assert (config.scene.instruction, config.out) == (value, value)
    assert options([f"out={value}"], {"out": ""}) == {"out": value}


@pytest.mark.parametrize("name", ["${x}", "a${seed} b", "${now:%Y}"])
def test_what_looks_like_an_interpolation_is_a_name_where_such_a_path_exists(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    root, out = f"{tmp_path / name}/data", str(tmp_path / name / "new")
    assert load_config("train", [f"data.root={root}"]).data.root == root
    assert OmegaConf.to_container(load_config("train", [f"data.root=[{root},b]"]), resolve=True)["data"]["root"] == [
        root,
        "b",
    ]
    assert load_config("eval", [f"out={out}"]).out == out
    assert options([f"out={out}"], {"out": ""}) == {"out": out}


def test_blanks_around_a_number_are_none_of_it() -> None:
    assert load_config("train", ["trainer.steps= 5 "]).trainer.steps == 5
    assert load_config("eval", ["+note= five "]).note == " five "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[/x/müller,/y/my data]", ["/x/müller", "/y/my data"]),
        ("[/x/it's (v2, old),b]", ["/x/it's (v2, old)", "b"]),
        ("['/x/a,b', /y/lr=1]", ["/x/a,b", "/y/lr=1"]),
        ("[a,b]", ["a", "b"]),
        ("[007, 1e3,'3']", ["007", "1e3", "3"]),
    ],
)
def test_values_in_a_list_are_taken_as_they_are(text: str, expected: list[str]) -> None:
    assert OmegaConf.to_container(load_config("train", [f"data.root={text}"]).data)["root"] == expected


def test_what_is_hydra_syntax_stays_that() -> None:
    words = [
        "trainer.lr=1e-3",
        "+a={b:1,c:[2]}",
        "init_from=null",
        "~wandb",
        "x='a, b'",
        "d=${now:%Y}",
        "run_dir=outputs/${now:%Y}",
        "data.root=${oc.env:HOME}",
        "data.root=???",
        "e=[]",
        "--help",
    ]
    assert quoted_words(words) == words
    assert load_config("train", ["data.exclude_episodes=[[3,17],[]]"]).data.exclude_episodes == [[3, 17], []]


def test_commands_without_a_configuration_file_read_the_same_words() -> None:
    defaults = {"out": "", "json": False, "steps": 50, "data_mb": 100.0}
    words = ["out='a, b'", "json=true", "steps=6", "data_mb=1e2"]
    assert options(words, defaults) == {"out": "a, b", "json": True, "steps": 6, "data_mb": 100.0}
    assert options(["out=0012"], defaults)["out"] == "0012"
    with pytest.raises(InputError, match="steps: expected a whole number"):
        options(["steps=1.5"], defaults)


def test_a_sweep_stays_a_sweep_of_values_that_are_taken_as_they_are() -> None:
    words = [
        "policy=flow,ddpm",
        "data.root=choice(/a,/b)",
        "seed=range(1,3)",
        "--multirun",
        "trainer.lr=choice(1e-3,1e-4)",
    ]
    assert quoted_words(words, sweep=True) == words
    assert quoted_words(["data.root=/x/müller,/y/it's"], sweep=True) == [r"data.root='/x/müller','/y/it\'s'"]
    assert quoted_words(["data.root=/x,1e3"], sweep=True) == ["data.root=/x,'1e3'"]


@pytest.mark.parametrize("multirun", [False, True])
def test_vla_train_quotes_its_words(monkeypatch: pytest.MonkeyPatch, multirun: bool) -> None:
    more = ["--multirun", "policy=flow,ddpm"] if multirun else []
    monkeypatch.setattr(sys, "argv", ["vla-train", "data.root=/x/用户 (1)", *more])
    seen: list[str] = []
    monkeypatch.setattr(train, "run", lambda: seen.extend(sys.argv[1:]))
    train.main()
    assert seen == ["data.root='/x/用户 (1)'", *more]
    with initialize_config_module("vla_policy.conf", version_base="1.3"):
        assert compose("train", overrides=seen[:1]).data.root == "/x/用户 (1)"


def test_a_checkpoint_may_have_an_equals_sign_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert checkpoint_arguments(config_parser("vla-eval", ""), [str(folder), "seed=1"]) == (str(folder), ["seed=1"])
    assert checkpoint_arguments(config_parser("vla-eval", ""), ["baseline=hold"]) == (None, ["baseline=hold"])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("n_episodes=abc", "n_episodes: Value 'abc' of type 'str' could not be converted to Integer"),
        ("n_episodes=[1,2]", "n_episodes: Value '[1, 2]' of type 'ListConfig' could not be converted to Integer"),
        ("n_episodes=null", "n_episodes: Incompatible value 'None' for field of type 'int'"),
        ("baseline=[a]", "baseline: Cannot convert 'ListConfig' to string: '['a']'"),
        ("policy=3", "policy: expected one of ['autoregressive', 'ddpm', 'flow', 'masked'], found 3"),
        ("policy=[1]", "policy: expected one of ['autoregressive', 'ddpm', 'flow', 'masked'], found [1]"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_line(word: str, line: str) -> None:
    assert error_of(eval_main, "CHECKPOINT", word) == f"error: {line}"


@pytest.mark.parametrize(
    "word", ["task=pusht", "task.max_episode_steps=8", "+task.cameras.side={size: 8}", "++task=own"]
)
def test_the_scene_is_not_called_task(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(InputError, match=r"^task: expected scene=.* found '.*task"):
        load_config("eval", [word])
    monkeypatch.setattr(sys, "argv", ["vla-train", "data.root=x", word])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: task: expected scene=")


def test_a_run_folder_that_calls_its_scene_task_is_resumed(tmp_path: Path) -> None:
    config = load_config("train", ["data.root=x", "scene=pusht_language", "resume=true"])
    older = OmegaConf.to_container(config, resolve=True)
    older["task"] = older.pop("scene")
    OmegaConf.save(older, tmp_path / "config.yaml")
    resumed = train_job._configuration(config, tmp_path, described=True)
    assert resumed.scene == config.scene
    assert "task" not in resumed
