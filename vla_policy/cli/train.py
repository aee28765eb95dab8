"""vla-train: a Hydra program that trains a policy or a world model on a LeRobotDataset."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vla_policy.cli.common import user_errors
from vla_policy.utils.configuration import quoted_words, refuse_task
from vla_policy.utils.options import explained_training, store_options


@hydra.main(version_base="1.3", config_path="pkg://vla_policy.conf", config_name="train")
@user_errors
def run(config: DictConfig) -> None:
    """One training run, in Hydra's output folder."""
    from vla_policy.jobs import train  # torch is slow to import: not for --help

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    try:
        train.run(config, run_dir, hydra_config.overrides.task)
    except BaseException:
        with suppress(FileNotFoundError):  # another process was faster
            if not any(run_dir.iterdir()):  # Hydra creates the folder before the configuration is checked
                run_dir.rmdir()
        raise


@user_errors
def main() -> None:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra re-raises errors; `user_errors` prints them in one line
    refuse_task(sys.argv[1:])
    store_options("train")
    sys.argv[1:] = quoted_words(sys.argv[1:], sweep=not {"-m", "--multirun"}.isdisjoint(sys.argv))
    if {"-h", "--help"}.isdisjoint(sys.argv):
        run()
    else:
        print(_help())


def _help() -> str:
    """Hydra's help text, whose configuration has values alone, with what each key means beside it."""
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        run()
    usage, title, values = shown.getvalue().partition("== Configuration ==\n")
    return usage + title + explained_training(yaml.safe_load(values))


if __name__ == "__main__":
    main()
