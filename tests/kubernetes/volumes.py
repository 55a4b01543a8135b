"""A provisioner of the node: gives each claim a folder, and removes it when the claim is gone.

    python -m tests.kubernetes.volumes NUMBER RUNTIME PROGRAMS

The volumes are of the kind ``local``. Those, other than ``hostPath``, belong to a pod's ``fsGroup`` as those of a
storage system do.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kubernetes.api import Api, Refused
from tests.kubernetes.place import NODE, Place

PROVISIONER = "tests/folders"
CLASS = "folders"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
OBJECTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        CLASSES,
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        },
    ),
)


def name_of(claim: dict[str, Any]) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def volume(claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A volume for nobody but this claim."""
    meta, spec = claim["metadata"], claim["spec"]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name_of(claim),
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{name: meta[name] for name in ("namespace", "name", "uid")},
            },
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "volumeMode": "Filesystem",
        },
    }


def provide(api: Api, place: Place, claim: dict[str, Any]) -> None:
    """Make a volume for a claim that waits for one."""
    spec = claim["spec"]
    if (
        claim["status"].get("phase") != "Pending"
        or spec.get("storageClassName") != CLASS
        or spec.get("volumeName")
    ):
        return
    folder = place.volumes / name_of(claim)
    folder.mkdir(mode=0o755, exist_ok=True)
    try:
        api.ask("POST", VOLUMES, volume(claim, folder))
    except Refused as error:
        if error.status != 409:  # it is there, and the claim does not know yet
            raise


def reclaim(api: Api, place: Place, volume: dict[str, Any]) -> None:
    """Remove a volume whose claim is gone, with its folder."""
    meta = volume["metadata"]
    ours = (meta.get("annotations") or {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
    gone = volume["status"].get("phase") in ("Released", "Failed") and not meta.get("deletionTimestamp")
    if ours and gone and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
        shutil.rmtree(place.volumes / meta["name"], ignore_errors=True)
        api.ask("DELETE", f"{VOLUMES}/{meta['name']}")


def forever(api: Api, place: Place, path: str, treat: Callable[[Api, Place, Any], None]) -> None:
    """Do something to each object of a collection, whenever it changes."""
    while True:
        try:
            for thing in api.watch(path):
                treat(api, place, thing)
        except Exception as error:  # whatever it is, the next look may be better
            print(f"{path}: {error!r}", flush=True)
            time.sleep(1)


def main(number: str, runtime: str, programs: str) -> None:
    place = Place(int(number), Path(runtime), Path(programs))
    api = Api(place)
    threading.Thread(target=forever, args=(api, place, VOLUMES, reclaim), daemon=True).start()
    forever(api, place, "/api/v1/persistentvolumeclaims", provide)


if __name__ == "__main__":
    main(*sys.argv[1:])
