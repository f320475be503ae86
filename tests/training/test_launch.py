"""Which process this one is: torchrun's and srun's environments."""

from __future__ import annotations

import pytest

from medssl.errors import LaunchError
from medssl.training.launch import Launch, first_host, launch_of


def test_one_process_where_nothing_is_said():
    assert launch_of({}) == Launch()


def test_torchrun():
    found = launch_of(
        {
            "RANK": "5",
            "WORLD_SIZE": "8",
            "LOCAL_RANK": "1",
            "MASTER_ADDR": "gpu07",
            "MASTER_PORT": "29400",
            "TORCHELASTIC_RESTART_COUNT": "2",
        }
    )
    assert found == Launch(5, 8, 1, "gpu07", 29400, 2, "torchrun")


def test_torchrun_without_an_address_is_refused():
    with pytest.raises(LaunchError, match="MASTER_ADDR and MASTER_PORT are not"):
        launch_of({"RANK": "0", "WORLD_SIZE": "2"})


def test_srun_and_the_port_of_its_job():
    environment = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
    }
    assert launch_of(environment) == Launch(3, 4, 1, "gpu07", 20000 + 123456 % 20000, 0, "srun")
    assert launch_of(environment | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "999"}).address == "10.0.0.1"


def test_the_batch_script_itself_is_one_process():
    """There SLURM_NTASKS is set, and no other task was started."""
    assert launch_of({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) == Launch()


@pytest.mark.parametrize(
    ("nodes", "first"), [("a", "a"), ("a,b", "a"), ("n[001-004]", "n001"), ("n[3,7-9],m1", "n3"), ("big-1,n[1-2]", "big-1")]
)
def test_the_first_machine_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_no_machines():
    with pytest.raises(LaunchError, match="set MASTER_ADDR"):
        first_host("")
