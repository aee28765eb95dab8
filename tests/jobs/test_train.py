"""`from vla_policy import train`, as a script or a notebook calls it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small_dataset import make_small_dataset
from helpers.small_runs import SHORT_RUN, SMALL_POLICY
from omegaconf import OmegaConf

import vla_policy
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy

SMALL = ["policy.observation_keys=[observation.state]", *SMALL_POLICY, *SHORT_RUN, "data.val_episodes=1"]


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, vla_policy; print(vla_policy.__version__, *(m for m in ('torch', 'hydra') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [vla_policy.__version__]


def test_own_data_are_trained_on_without_the_simulation(bimanual_dataset: Path, tmp_path: Path) -> None:
    words = [f"data.root={bimanual_dataset}", f"run_dir={tmp_path / 'run'}", "trainer.steps=2", *SMALL]
    missing = "sys.modules.update(dict.fromkeys(['sim', 'pybullet', 'gymnasium', 'shapely', 'matplotlib']))"
    code = f"import sys; {missing}; from vla_policy import train; print(train({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = Path(done.stdout.splitlines()[-1])
    assert last == tmp_path / "run" / "checkpoints" / "last"
    assert DiffusionPolicy.from_pretrained(last).card["training"]["step"] == 2


def test_a_run_resumes_and_a_mistake_is_an_input_error(bimanual_dataset: Path, tmp_path: Path) -> None:
    words = [f"data.root={bimanual_dataset}", f"run_dir={tmp_path / 'run'}", "trainer.steps=1", *SMALL]
    last = vla_policy.train(words)
    assert vla_policy.train([f"run_dir={tmp_path / 'run'}", "resume=true"]) == last
    with pytest.raises(InputError, match="holds a run already"):
        vla_policy.train(words)
    with pytest.raises(InputError, match="the overrides differ"):
        vla_policy.train([*words, "resume=true", "trainer.lr=0.1"])


def test_names_with_dollar_signs_and_blanks_are_taken_as_they_are(
    bimanual_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bimanual_dataset, tmp_path / "${x}" / "data ")
    words = ["data.root=${x}/data ", "run_dir=run ", "trainer.steps=1", *SMALL]
    vla_policy.train(words)
    assert OmegaConf.load(tmp_path / "run " / "config.yaml").data.root == "${x}/data "
    vla_policy.train([*words, "resume=true"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.symmetries=[mirror]"], r"data.symmetries: expected a scene, .*\['mirror'\], found none"),
        (
            ["data.symmetries=[mirror]", "scene=pusht", "recipe=own"],
            "data.symmetries: observation.state: expected channels",
        ),
        (["policy.ensemble=2"], "policy.ensemble: expected 1 in training, found 2"),
        (["distill.target=samples"], "distill.teacher: expected a checkpoint for distill.target=samples, found none"),
        (["distill.target=words"], "distill.target: expected outputs, samples or endpoint, found 'words'"),
        (["distill.target=endpoint"], "distill.teacher: expected a checkpoint for distill.target=endpoint, found none"),
        (
            ["distill.target=endpoint", "distill.teacher=x", "init_from=y"],
            "init_from: expected none with distill.target=endpoint, which begins as its teacher, found y",
        ),
        (["distill.teacher=nowhere"], "distill.teacher nowhere: checkpoint 'nowhere': no such folder"),
        (["data.action_loss=[true,false]"], "data.action_loss: expected 1 times true or false"),
    ],
)
def test_levers_that_do_not_fit_are_named(
    bimanual_original: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        vla_policy.train([f"data.root={bimanual_original}", *SMALL, f"run_dir={tmp_path}", *words])


def test_a_teachers_path_is_learnt_from_demonstrations_and_play_alike(tmp_path: Path) -> None:
    for name in ("demos", "play"):
        make_small_dataset(tmp_path / name, (), episodes=2, offset=0.1 * (name == "play"))
    shared = ["policy.observation_keys=[observation.state]", *SMALL_POLICY, *SHORT_RUN, "data.val_episodes=1"]
    words = [f"data.root={tmp_path / 'demos'}", *shared, "trainer.steps=2", f"run_dir={tmp_path / 'teacher'}"]
    teacher = DiffusionPolicy.from_pretrained(source := vla_policy.train(words))
    words = [
        f"data.root=[{tmp_path / 'demos'},{tmp_path / 'play'}]",
        "data.action_loss=[true,false]",
        *[f"distill.teacher={source}", "distill.target=endpoint", "policy.objective.inference_steps=1"],
        *[*shared, "trainer.steps=2", "policy.noise_samples=3", f"run_dir={tmp_path / 'student'}"],
    ]
    student = DiffusionPolicy.from_pretrained(vla_policy.train(words))
    assert student.config.objective.inference_steps == 1
    assert student.card["training"]["teacher"] == f"endpoint of {source}"
    changed = {
        name.partition(".")[0]
        for name, value in student.state_dict().items()
        if not torch.equal(value, teacher.state_dict()[name])
    }
    assert changed == {"transformer", "head"}
    assert student.normalizer.to_dict() == teacher.normalizer.to_dict()
    vla_policy.train([*words, "resume=true"])
    with pytest.raises(InputError, match=r"distill\.teacher .*policy\.horizon: expected the teacher's 16, found 12"):
        vla_policy.train([*words, "policy.horizon=12", f"run_dir={tmp_path / 'other'}"])


def test_a_run_from_before_an_option_existed_is_resumed_with_its_default(
    bimanual_original: Path, tmp_path: Path
) -> None:
    words = [f"data.root={bimanual_original}", *SMALL, "trainer.steps=1", f"run_dir={tmp_path}"]
    vla_policy.train(words)
    stored = OmegaConf.load(tmp_path / "config.yaml")
    del stored["distill"], stored["data"]["symmetries"], stored["policy"]["ensemble"]
    OmegaConf.save(stored, tmp_path / "config.yaml")
    vla_policy.train([*words, "resume=true"])
    with pytest.raises(InputError, match=r"resume: the overrides differ .* policy.predict_past \(expected True"):
        vla_policy.train([*words, "resume=true", "policy.predict_past=false"])
