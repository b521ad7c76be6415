"""Records are found below a folder, also behind links, and each only once."""

from prunebench.records.below import below


def test_a_link_leads_to_another_disk_and_never_in_a_circle(tmp_path):
    outputs, disk = tmp_path / "outputs", tmp_path / "disk"
    for place in (outputs / "b" / "run", disk / "run"):
        place.mkdir(parents=True)
        (place / "run.json").touch()
        (place / "report.json").touch()
    (disk / "round").symlink_to(outputs)
    (outputs / "a").symlink_to(disk)
    (outputs / "latest").symlink_to(outputs / "b" / "run")
    (outputs / "gone").symlink_to(tmp_path / "nowhere")
    assert below(outputs, "run.json") == [
        outputs / "a" / "run" / "run.json", outputs / "b" / "run" / "run.json"
    ]  # fmt: skip
    assert len(below(outputs, "run.json", "report.json")) == 4
    assert below(tmp_path / "nowhere", "run.json") == []
