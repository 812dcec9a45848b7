import pytest
from cards import CARD

from ofa_jax.run import benchmark


def test_figures_are_shown_even_where_they_cannot_be_written(monkeypatch, tmp_path, capsys):
    def refuse(*_):
        raise OSError("card.json could not be written: Read-only file system")

    monkeypatch.setattr(benchmark, "read_card", lambda _: CARD)
    monkeypatch.setattr(benchmark, "_calls", lambda *_: {("JAX", 1, 1): lambda: None})
    monkeypatch.setattr(benchmark, "write_card", refuse)
    with pytest.raises(OSError, match="Read-only"):
        benchmark.benchmark(tmp_path, batch=1, repeats=1)
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[:3] == ["JAX", "1", "1"]
    assert float(row[3]) >= 0
