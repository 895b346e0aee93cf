"""The benchmark of pretraining and fine-tuning runs: in tiny, once."""

from tests.benchmarks.pretrain_speed import main


def test_it_prints_a_row_for_each_way(capsys):
    main(["--quick"])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[4:]]
    ways = ("pretrain", "sft", "sft, packed")
    assert rows == [[f"| {way}", precision] for precision in ("fp32", "bf16") for way in ways]
