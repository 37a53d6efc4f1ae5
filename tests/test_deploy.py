"""deploy/: every manifest against the schema of what will read it, and what must hold between them."""

import copy
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from saddlepoint import __version__
from saddlepoint.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "cluster.md").read_text()
SCHEMAS = Path(__file__).parent / "schemas"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
MANIFESTS = {
    f"{document['kind']}-{document['metadata']['name']}": json.loads(json.dumps(document))  # without aliases
    for path in sorted(DEPLOY.glob("kubernetes/*/*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
}
KUSTOMIZATIONS = sorted(DEPLOY.glob("kubernetes/*/kustomization.yaml"))
CHOSEN = {"labels", "matchLabels", "data", "rayStartParams", "requests", "limits"}  # maps whose keys are free


def nodes(tree: Any, *path: str | int) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value below, with the keys that lead to it."""
    if path:
        yield path, tree
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from nodes(value, *path, key)


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def found(key: str, tree: Any = MANIFESTS) -> list[Any]:
    return [value for path, value in nodes(tree) if path[-1] == key]


@pytest.fixture(scope="module")
def complaints() -> Callable[[dict[str, Any]], list[str]]:
    """What a strict API server would say of a manifest."""
    contents = {
        "kubernetes": json.loads((SCHEMAS / "kubernetes.json").read_text()),
        "kuberay": yaml.safe_load((SCHEMAS / "kuberay.yaml").read_text()),
    }
    registry: Registry[Any] = Registry().with_resources(
        (name, DRAFT7.create_resource(content)) for name, content in contents.items()
    )
    groups = {"v1": "core.v1", "apps/v1": "apps.v1", "networking.k8s.io/v1": "networking.v1"}

    def say(manifest: dict[str, Any]) -> list[str]:
        version, kind = manifest["apiVersion"], manifest["kind"]
        name = kind if version == "ray.io/v1" else f"io.k8s.api.{groups[version]}.{kind}"
        source = "kuberay" if version == "ray.io/v1" else "kubernetes"
        schema = {"allOf": [{"$ref": f"{source}#/definitions/{name}"}, {"required": ["metadata"]}]}
        return [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(manifest)]

    return say


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_and_none_of_its_keys_may_be_misspelt(name, complaints):
    manifest = MANIFESTS[name]
    free = CHOSEN | ({"selector"} if manifest["kind"] == "Service" else set())
    assert complaints(manifest) == []
    for path, value in nodes(manifest):
        key, parent = path[-1], path[:-1]
        wrong = copy.deepcopy(manifest)
        at(wrong, parent)[key] = "wrong" if isinstance(value, dict | list) else ["wrong"]
        if path not in {("apiVersion",), ("kind",)}:
            assert complaints(wrong), f"{path}: a wrong type is not seen"
        if isinstance(key, str) and not free & set(parent[-1:]) and len(path) > 1:
            wrong = copy.deepcopy(manifest)
            at(wrong, parent)[f"{key}s"] = at(wrong, parent).pop(key)
            assert complaints(wrong), f"{path}: a misspelt key is not seen"


def test_the_set_is_whole():
    kinds = {name.partition("-")[0] for name in MANIFESTS}
    assert kinds == {"Namespace", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "Service", "StatefulSet",
                     "Deployment", "RayCluster", "RayJob"}  # fmt: skip
    for path in KUSTOMIZATIONS:
        content = yaml.safe_load(path.read_text())
        assert set(content) <= {"apiVersion", "kind", "namespace", "components", "resources", "images"}
        assert set(content.get("resources", [])) == {other.name for other in path.parent.glob("*.yaml")} - {path.name}
        assert content.get("components", ["../images"]) == ["../images"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("folder", [path.parent.name for path in KUSTOMIZATIONS if path.parent.name != "images"])
def test_kustomize_builds_it(folder, complaints):
    done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes" / folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    built = list(yaml.safe_load_all(done.stdout))
    assert [complaints(manifest) for manifest in built] == [[]] * len(built)
    assert {m["metadata"].get("namespace", "saddle") for m in built} == {"saddle"}
    pinned = found("image", built)
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image) for image in pinned)
    assert bool(pinned) == (folder != "base")


def test_images_are_pinned_in_one_place():
    pins = {
        pin["name"]: pin
        for pin in yaml.safe_load((DEPLOY / "kubernetes/images/kustomization.yaml").read_text())["images"]
    }
    assert set(found("image")) == set(pins)
    assert pins["saddlepoint"]["newTag"] == __version__
    assert all(re.search(r"\d+\.\d+", str(pin["newTag"])) for pin in pins.values())
    assert set(found("rayVersion")) == {LOCK["ray"]}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, manifest in MANIFESTS.items():
        for path, value in nodes(manifest):
            if path[-2:] == ("template", "spec"):
                yield name, value


def test_no_pod_needs_more_than_the_restricted_standard_gives():
    """Kubernetes' Pod Security Standards, "restricted", which the namespace enforces; and limits."""
    assert MANIFESTS["Namespace-saddle"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(list(pods())) == 8
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert {kind for volume in pod.get("volumes", []) for kind in volume} <= {
            "name",
            "configMap",
            "persistentVolumeClaim",
        }
        assert pod["enableServiceLinks"] is False, f"{name}: the Service mlflow would set MLFLOW_PORT"
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
        assert all("memory" in container["resources"]["limits"] for container in pod["containers"]), name


def test_no_secret_stands_in_a_file():
    assert not any(name.startswith("Secret") for name in MANIFESTS)
    for env in (entry for list_ in found("env") for entry in list_):
        assert not ("value" in env and re.search(r"PASSWORD|SECRET|TOKEN|KEY", env["name"])), env["name"]
    for path in (path for path in DEPLOY.rglob("*") if path.is_file()):
        assert not re.search(r"://[^/\s]+:[^/\s]+@", path.read_text()), f"{path.name}: a URL with a password"


def test_what_is_referred_to_is_there():
    """ConfigMaps and claims are in the manifests, secrets are made by the page, with the keys that are read."""
    secrets = {
        name: set(re.findall(r"--from-literal=(\w+)=", rest))
        for name, rest in re.findall(r"create secret generic ([\w-]+) --namespace saddle(.*)", PAGE)
    }
    assert secrets == {
        "ray-token": {"auth_token"},
        "postgres": {"PGPASSWORD"},
        "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    }
    assert {ref["name"] for ref in found("secretRef")} | set(found("secretName")) == set(secrets)
    assert all(ref["key"] in secrets[ref["name"]] for ref in found("secretKeyRef"))
    maps = {ref["name"] for ref in [*found("configMapRef"), *found("configMap")]}
    assert maps == {name.partition("-")[2] for name in MANIFESTS if name.startswith("ConfigMap")}
    assert set(found("claimName")) == {"storage"} == {n.partition("-")[2] for n in MANIFESTS if n.startswith("Persist")}
    assert MANIFESTS["PersistentVolumeClaim-storage"]["spec"]["accessModes"] == ["ReadWriteMany"]
    mounted = {mount["mountPath"] for mounts in found("volumeMounts") for mount in mounts if mount["name"] == "storage"}
    assert mounted == {MANIFESTS["ConfigMap-ray"]["data"]["SADDLE_STORAGE"]} == set(found("workingDir"))


def test_who_is_called_listens_and_lets_the_caller_in():
    """Every URL in the settings and on the page: its Service, the port behind it, and the policy for its caller."""
    urls = [
        value
        for name, manifest in MANIFESTS.items()
        if name.startswith("ConfigMap")
        for value in manifest["data"].values()
    ]
    urls += shlex.split(MANIFESTS["RayJob-digits"]["spec"]["entrypoint"])
    called = {host for url in urls for host in re.findall(r"(?:http|psycopg2)://(?:saddle@)?([\w-]+)[:/]", url)}
    assert called == {"mlflow", "postgres", "s3"}
    for host in called:
        service = MANIFESTS[f"Service-{host}"]["spec"]
        port = service["ports"][0]["port"]
        assert service.get("type", "ClusterIP") == "ClusterIP"
        server = MANIFESTS.get(f"StatefulSet-{host}") or MANIFESTS[f"Deployment-{host}"]
        assert server["spec"]["template"]["metadata"]["labels"] == service["selector"] == {"app": host}
        assert found("containerPort", server) == [port]
        policy = MANIFESTS[f"NetworkPolicy-{host}"]["spec"]
        assert policy["podSelector"]["matchLabels"] == {"app": host}
        assert found("port", policy["ingress"]) == [port]
    callers = {host: found("matchLabels", MANIFESTS[f"NetworkPolicy-{host}"]["spec"]["ingress"]) for host in called}
    assert callers == {
        "mlflow": [{"ray.io/is-ray-node": "yes"}],
        "postgres": [{"app": "mlflow"}, {"ray.io/node-type": "head"}],
        "s3": [{"app": "mlflow"}],
    }
    (operator,) = found("kubernetes.io/metadata.name")
    assert f"--namespace {operator} --create-namespace" in PAGE
    nobody = MANIFESTS["NetworkPolicy-nobody"]["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_mlflow_understands_its_settings():
    import mlflow.cli
    from mlflow import environment_variables
    from mlflow.server.security_utils import is_allowed_host_header

    settings = MANIFESTS["ConfigMap-mlflow"]["data"]
    options = {option.envvar for option in mlflow.cli.cli.commands["server"].params if option.envvar}
    known = options | set(vars(environment_variables))
    assert {name for name in settings if name.startswith("MLFLOW_")} <= known
    assert {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"} <= options
    assert settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    hosts = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    uri = MANIFESTS["ConfigMap-ray"]["data"]["MLFLOW_TRACKING_URI"]
    assert is_allowed_host_header(hosts, uri.removeprefix("http://"))
    assert is_allowed_host_header(hosts, "127.0.0.1:5000")
    assert not is_allowed_host_header(hosts, "evil.example:5000")
    (command,) = [command for command in found("command", MANIFESTS["Deployment-mlflow"]) if command[0] == "mlflow"]
    mlflow.cli.cli.commands["server"].make_context("server", command[2:])


def test_ray_understands_its_settings():
    import ray.scripts.scripts

    options = {option.removeprefix("--") for param in ray.scripts.scripts.start.params for option in param.opts}
    for params in found("rayStartParams"):
        assert set(params) <= options
    for auth in found("authOptions"):
        assert auth == {"mode": "token", "secretName": "ray-token"}
    # Trials stay off the head; a worker's limits are what Ray counts.
    heads = found("headGroupSpec")
    assert [head["rayStartParams"]["num-cpus"] for head in heads] == ["0", "0"]
    gpus = {
        group["groupName"]: [limits.get("nvidia.com/gpu") for limits in found("limits", group)]
        for group in MANIFESTS["RayCluster-sweeps"]["spec"]["workerGroupSpecs"]
    }
    assert gpus == {"cpu": [None], "gpu": [1]}


def test_the_job_has_the_clusters_pods():
    cluster, job = MANIFESTS["RayCluster-sweeps"]["spec"], MANIFESTS["RayJob-digits"]["spec"]["rayClusterSpec"]
    assert job["headGroupSpec"] == cluster["headGroupSpec"]
    assert job["workerGroupSpecs"][0]["template"] == cluster["workerGroupSpecs"][0]["template"]
    assert (job["rayVersion"], job["authOptions"]) == (cluster["rayVersion"], cluster["authOptions"])


def parse_saddle(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    name, child, rest = command.resolve_command(command.make_context("saddle", list(arguments)), arguments)
    child.make_context(name, rest)


def test_the_jobs_command_is_one():
    program, *arguments = shlex.split(MANIFESTS["RayJob-digits"]["spec"]["entrypoint"])
    assert program == "saddle"
    parse_saddle(arguments)


def test_the_nodes_settings_can_be_read():
    before = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(["sh", "-ec", f". {DEPLOY / 'node.env'} && env"], env=before, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    settings = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["SADDLE_CACHE"] == settings["SADDLE_STORAGE"] + "/cache"
    told = MANIFESTS["ConfigMap-ray"]["data"]
    assert set(told) <= set(settings)
    assert told["SADDLE_PROGRESS"] == settings["SADDLE_PROGRESS"] == "lines"  # else a job's log is empty until its end


@pytest.fixture(scope="module")
def dockerfile() -> list[list[str]]:
    """The instructions, each as its words."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [line.split(maxsplit=1) for line in lines if line.strip()]


def test_the_image_is_built_from_what_is_there(dockerfile):
    sources = [word for name, rest in dockerfile if name == "COPY" for word in rest.split()[:-1]]
    sent = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources) == sorted(sent)
    assert all((ROOT / source).exists() for source in sources)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
        *wheel["force-include"],
        *wheel["packages"],
    ]
    assert all(any(path == source or path.startswith(f"{source}/") for source in sources) for path in needed)
    extras = {
        extra for _, rest in dockerfile for extras in re.findall(r"\.\[([\w,]+)\]", rest) for extra in extras.split(",")
    }
    assert extras == set(PROJECT["project"]["optional-dependencies"]) - {"dev"}
    # The lock has the tests' tools in it: it says the versions of what the package asks for, and installs nothing.
    installs = [command for _, rest in dockerfile for command in rest.split(" && ") if "pip install" in command]
    assert len(installs) == 3
    for command in installs:
        assert ("--constraint requirements.lock" in command) != ("--no-deps" in command)
        assert not re.search(r"--requirement|\s-r\b", command)


def test_the_image_runs_what_it_says(dockerfile):
    instructions = {name: rest for name, rest in dockerfile if name in ("FROM", "USER", "CMD", "ENV")}
    python = re.fullmatch(r"python:(\d+)\.(\d+)-slim-\w+", instructions["FROM"])
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert tuple(map(int, python.groups())) >= tuple(map(int, lowest.groups()))
    assert instructions["USER"] == str(*{pod["securityContext"]["runAsUser"] for name, pod in pods() if "Ray" in name})
    assert {"RAY_AUTH_MODE=token", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1"} <= set(instructions["ENV"].split())
    program, *arguments = json.loads(instructions["CMD"])
    assert program in PROJECT["project"]["scripts"]
    parse_saddle(arguments)
    (installed,) = [rest.split() for name, rest in dockerfile if name == "RUN" and "apt-get install" in rest]
    assert {"wget", "g++"} <= set(installed)  # KubeRay's probes; torch.compile


def test_docker_leaves_out_what_the_ignore_file_does():
    patterns = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert patterns[1] == "*"
    assert any(fnmatch.fnmatch("platform/saddlepoint/__pycache__", pattern) for pattern in patterns[2:])
