"""What people deploy with: every command that the documents and units name exists, with every
option; the image copies what its build needs; manifests are what their readers expect."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bandweave.cli.main import COMMANDS, cli

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
_EXTRAS = re.compile(r"bandweave\[([a-z,]+)\]|EXTRAS=([a-z,]+)")


def command_lines(text: str) -> Iterator[list[str]]:
    """The words behind ``bandweave`` wherever a line of a shell gives that command."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        code = re.sub(r"\s#.*", "", line)
        for found in re.finditer(
            r"(?:^|[\s`/])bandweave ((?:[a-z]+)(?: [^`;|&>]*)?)", code
        ):  # fmt: skip
            try:
                words = shlex.split(found[1].replace("...", "x"))
            except ValueError:  # prose with an apostrophe
                continue
            if words and words[0] in COMMANDS:
                yield words


def check_command(words: list[str]) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, words[0])
    assert command is not None, words
    known = {option for parameter in command.params for option in parameter.opts} | {
        option for parameter in command.params for option in parameter.secondary_opts
    }
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in {*known, "--help"}, (words, word)


def fenced(text: str) -> str:
    """What stands in fences and in backquotes."""
    blocks = re.findall(r"^\s*```\w*\n(.*?)^\s*```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^\s*```\w*\n.*?^\s*```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return "\n".join([*blocks, *spans])


def test_all_commands_of_the_guide_exist() -> None:
    lines = list(command_lines(fenced((ROOT / "docs" / "deploy.md").read_text())))
    assert {"up", "join", "status", "leave", "worker", "serve", "run", "plan"} <= {
        words[0] for words in lines
    }
    for words in lines:
        check_command(words)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.*")), ids=lambda path: path.name)
def test_all_commands_of_files_exist(path: Path) -> None:
    for words in command_lines(path.read_text()):
        check_command(words)


def test_a_command_that_is_none_would_be_found() -> None:
    (words,) = command_lines("x\n  sudo /opt/bandweave/bin/bandweave worker --nonsense 5 \\\n  --b")
    assert words == ["worker", "--nonsense", "5", "--b"]
    with pytest.raises(AssertionError, match="nonsense"):
        check_command(words)


def test_files_that_the_guide_links_to_are_there() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if target.startswith("https://"):
            continue
        assert (ROOT / "docs" / target).exists(), target
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lower().lstrip("# ")).replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings, anchor


# --- the image ---


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_image_has_what_its_build_needs_and_no_root() -> None:
    copied = [words.split() for name, words in instructions() if name == "COPY"]
    sources = {one for words in copied for one in words[:-1] if not one.startswith(("--", "/"))}
    for source in sources:
        assert (ROOT / source).exists(), source
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} <= set(ignored)
    # All that pyproject.toml and CMakeLists.txt name.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {one.split("/")[0] for one in project["tool"]["scikit-build"]["wheel"]["packages"]}
    cmake = (ROOT / "CMakeLists.txt").read_text()
    needed |= {name for name in ("native", "cmake") if f"{name}/" in cmake or name in cmake}
    assert needed <= sources
    users = [words for name, words in instructions() if name == "USER"]
    assert users and users[-1].isdigit() and int(users[-1]) > 0
    stages = [words for name, words in instructions() if name == "FROM"]
    assert len(stages) == 2 and "AS build" in stages[0]
    assert ("ENTRYPOINT", '["bandweave"]') in instructions()


def test_extras_that_are_installed_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = set(project["project"]["optional-dependencies"])
    texts = [path.read_text() for path in (*DEPLOY.rglob("*.*"), DEPLOY / "Dockerfile")]
    texts.append((ROOT / "docs" / "deploy.md").read_text())
    for text in texts:
        for found in _EXTRAS.finditer(text):
            assert set((found[1] or found[2]).split(",")) <= known, found[0]


# --- units and manifests ---


def test_systemd_believes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    true = shutil.which("true")
    paths = []
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        # The command itself is not installed here.
        text = unit.read_text().replace("/opt/bandweave/bin/bandweave", str(true))
        path = tmp_path / unit.name
        path.write_text(text)
        paths.append(str(path))
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True,
                          check=False)  # fmt: skip
    own = [line for line in done.stderr.splitlines() if "bandweave" in line]
    assert not own, done.stderr


def manifests() -> list[dict[str, Any]]:
    found = []
    for path in sorted((DEPLOY / "kuberay").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(path.read_text()) if one]
    return found


def test_manifests_fit_together() -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in manifests():
        assert one["metadata"]["name"], one
        by_kind.setdefault(one["kind"], []).append(one)
    (cluster,) = by_kind["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster["spec"]["authOptions"]["mode"] == "token"
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    secrets = {one["metadata"]["name"] for one in by_kind.get("Secret", [])}
    claims = {one["metadata"]["name"] for one in by_kind.get("PersistentVolumeClaim", [])}
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
            security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
            assert security["runAsNonRoot"] is True
            assert container["resources"]["limits"]["memory"]
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "secret" in volume and secrets:
                assert volume["secret"]["secretName"] in secrets
    templates = [group["template"] for group in groups]
    templates += [one["spec"]["template"] for one in by_kind["Deployment"]]
    for service in by_kind["Service"]:
        own = service["spec"]["selector"].items()
        (pod,) = [one["spec"] for one in templates if own <= one["metadata"]["labels"].items()]
        ports = {port["name"] for one in pod["containers"] for port in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    known = {one["metadata"]["labels"]["app"] for one in templates}
    for policy in by_kind["NetworkPolicy"]:
        named = re.findall(r"bandweave-\w+", str(policy["spec"]))
        assert named and set(named) <= known


def test_what_containers_are_told_are_commands() -> None:
    texts = []
    for one in manifests():
        for container in re.findall(r"'args': \[(.*?)\]", str(one)):
            texts.append(container)
    assert any("up --foreground" in text for text in texts)
    for one in manifests():
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            check_command(container["args"])


def test_the_composition_is_consistent() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    volumes = set(found["volumes"])
    for name, service in found["services"].items():
        check_command(shlex.split(service["command"]))
        assert {mount.split(":")[0] for mount in service["volumes"]} <= volumes, name
        assert set(service.get("depends_on", [])) <= set(found["services"])
