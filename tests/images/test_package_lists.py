"""Which layer of a shorter package list a longer one is installed onto."""

from __future__ import annotations

from pathlib import Path

from minimodal.image import Image
from minimodal.images.package_lists import MAX_GROWTH, MAX_NOTES, PackageList, PackageLists
from minimodal.images.package_lists import package_list as list_of
from minimodal.layers import PipInstall


def package_list(*packages: str, **options: str) -> PackageList:
    found = list_of("parent", PipInstall(packages, **options))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_longest_part_of_a_list_is_found_first(tmp_path: Path) -> None:
    lists = PackageLists(tmp_path / "lists")
    assert lists.shorter(package_list("a")) == []
    for number, packages in enumerate((("a",), ("b", "a"), ("a", "x"), ("a", "b", "c"))):
        lists.note(package_list(*packages), f"layer{number}", 0)
    wanted = package_list("c", "b", "a")
    assert [each.digest for each in lists.shorter(wanted)] == ["layer1", "layer0"]
    lists.forget(wanted, "layer1")
    assert [each.digest for each in lists.shorter(wanted)] == ["layer0"]
    other_index = package_list("a", "b", index_url="https://elsewhere")
    assert lists.shorter(other_index) == []
    lists.clear()
    assert lists.shorter(wanted) == []


def test_stacks_and_notes_have_their_limits(tmp_path: Path) -> None:
    lists = PackageLists(tmp_path)
    lists.note(package_list("a"), "tall", MAX_GROWTH)
    assert lists.shorter(package_list("a", "b")) == []
    for number in range(MAX_NOTES + 5):
        lists.note(package_list(f"p{number}"), f"layer{number}", 0)
    key = package_list("a").key
    assert len(list((tmp_path / key).iterdir())) == MAX_NOTES
    (tmp_path / key / "torn").write_text('{"entries": ["p2')
    assert lists.shorter(package_list("p24", "q"))[0].digest == "layer24"


def test_requirement_files_are_lists_too(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"

    def of(text: str) -> PackageList | None:
        path.write_text(text)
        layer = Image.debian_slim().pip_install_from_requirements(path).spec().layers[-1]
        return list_of("parent", layer)

    short, grown = of("six\n# why\n"), of("six\nidna<4 \\\n  --hash=sha256:0\n")
    assert short is not None
    assert grown is not None
    assert (short.key, short.entries < grown.entries) == (grown.key, True)
    elsewhere = of("--index-url https://elsewhere\nsix\nidna<4\n")
    assert elsewhere is not None
    assert elsewhere.key != short.key
    (tmp_path / "limits.txt").write_text("six<1.17\n")
    assert of("-c limits.txt\nsix\n") is None
