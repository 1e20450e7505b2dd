"""`redistrib lint` and `redistrib cost` as a program uses them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """\
mesh = {data = 2, model = 4}
expensive = 1e-5
profile = "dgx-h100"

# "f32[4096{model}]" in a comment is not the layout below
[[array]]
name = "w1"
layouts = [
    "f32[4096{data}, 4096{model}]",
    "f32[4096{data}, 4096{model}]",
    "f32[4096{model}, 4096{data}]",  # all of it moves
    "f32[4096{model}, 4096{tensor}]",
    "f32[4096{model}, 4096]",
]

[[array]]
name = "bias"
layouts = ["f32[4096{model}]", "f32[6{model}]", "f32[2048{model}]"]

[[array]]
name = "scale"
layouts = ["f32[4096{model}]", "f32[2048{model}]"]
"""


def lint(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "redistrib", "lint", str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_findings_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "program.toml"
    path.write_text(PROGRAM)
    result = lint(path)
    assert result.returncode == 1
    assert result.stderr == ""
    found = [line.removeprefix(f"{path}:").split(": ", 3) for line in result.stdout.splitlines()]
    assert [(line, kind, array) for line, kind, array, _ in found] == [
        ("11", "expensive", "w1"),
        ("12", "error", "w1"),
        ("18", "error", "bias"),
        ("22", "error", "scale"),
    ]
    messages = [message for *_, message in found]
    assert "8 MiB received per device" in messages[0]
    assert "unknown axis 'tensor'" in messages[1]
    assert "nearest legal sizes: 4 and 8" in messages[2]
    assert "one shape; got [4096] and [2048]" in messages[3]
    as_json = json.loads(lint(path, "--format", "json").stdout)
    assert [f["line"] for f in as_json] == [11, 12, 18, 22]


def test_json_is_read_too_and_a_clean_file_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "program.json"
    layouts = ["f32[64{x}]", "f32[64{x}]", "f32[64]"]
    path.write_text(json.dumps({"mesh": "x=2", "array": [{"name": "w", "layouts": layouts}]}))
    result = lint(path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mesh = {x = 2}", "a lint file has mesh, a list array"),
        ("mesh = 2\narray = []", "mesh is {AXIS: SIZE, ...}"),
        ("mesh = {x = 0}\narray = []", "the size of an axis"),
        ("mesh = {x = 2}\narray = []\nprofil = 'a'", "has mesh, array, profil"),
        ("mesh = {x = 2}\narray = []\nexpensive = 'a'", "expensive is a number"),
        ("mesh = {x = 2}\narray = []\nprofile = 'nope'", "a profile is default"),
        ("mesh = {x = 2", "a lint file is TOML or JSON"),
    ],
)
def test_files_that_are_no_such_list(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "program.toml"
    path.write_text(text)
    result = lint(path)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


MALFORMED = """\
mesh = {x = 2}

[[array]]
name = "good"
layouts = ["f32[8{x}]", "f32[9{x}]"]

[[array]]
name = "none"
layouts = []

[[array]]
layouts = ["f32[8]"]

[[array]]
name = "extra"
layouts = ["f32[8]"]
layuot = "f32[8]"

[[array]]
name = "last"
layouts = ["f32[8{y}]"]
"""


def test_a_malformed_array_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "program.toml"
    path.write_text(MALFORMED)
    result = lint(path, "--format", "json")
    assert (result.returncode, result.stderr) == (1, "")
    findings = json.loads(result.stdout)
    assert [(f["line"], f["array"]) for f in findings] == [
        (5, "good"),
        (8, "none"),
        (8, "array number 3"),
        (15, "extra"),
        (21, "last"),
    ]
    for finding in findings[1:4]:
        assert "a name and layouts, a list of at least one text" in finding["message"]
    assert "unknown axis 'y'" in findings[4]["message"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "program.toml"
    path.write_bytes(b"mesh = {x = 2}\narray = [] # \xff")
    result = lint(path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "a lint file is TOML or JSON" in result.stderr


def test_questions_are_answered_one_by_one_in_order() -> None:
    question = {"mesh": {"x": 2, "y": 4}, "src": "f32[8{x}, 8]", "dst": "f32[8, 8{x}]"}
    asked = [
        json.dumps({**question, "id": 1}),
        "not JSON",
        json.dumps({**question, "id": 2, "dst": "f32[8, 8{q}]"}),
        json.dumps({**question, "id": 3, "profile": "dgx-h100", "strategy": "direct"}),
        json.dumps({**question, "id": 4, "memory_limit": "1B"}),
        json.dumps({**question, "id": 1}),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "redistrib", "cost"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for line in asked:  # each answer comes before the next question is asked
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert [answer["id"] for answer in answers] == [1, None, 2, 3, 4, 1]
    assert ["error" in answer for answer in answers] == [False, True, True, False, True, False]
    assert answers[0] == answers[-1]
    assert answers[3]["seconds"] > answers[0]["seconds"]


def test_layouts_in_other_notations(tmp_path: Path) -> None:
    path = tmp_path / "program.toml"
    path.write_text(
        'mesh = "x=2,y=4"\n'
        "[[array]]\n"
        'name = "a"\n'
        """layouts = ["f32[8{x}, 8]", "P(None, 'y')", "[Shard(0), Shard(1)]", "P('z')"]\n"""
        "[[array]]\n"
        'name = "b"\n'
        """layouts = ["P('x')"]\n"""
    )
    found = json.loads(lint(path, "--format", "json").stdout)
    assert [finding["array"] for finding in found if finding["kind"] == "error"] == ["a", "b"]
    assert "does not state the shape" in found[-1]["message"]
