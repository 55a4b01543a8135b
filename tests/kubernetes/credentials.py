"""The keys of one life of the node: an authority, a certificate for each program, and kubeconfigs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kubernetes.place import NODE, Place

USERS = {  # whoever asks the API server: common name and group
    "admin": ("admin", "system:masters"),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "controller-manager": ("system:kube-controller-manager", "kube"),
    "scheduler": ("system:kube-scheduler", "kube"),
    "proxy": ("system:kube-proxy", "kube"),
}
# Python 3.13 and newer trust no certificate that does not say what it is for and who signed it.
SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
LIFE = datetime.timedelta(days=7)


def write(place: Place) -> None:
    """Write ``keys/``: ``NAME.crt``, ``NAME.key`` and ``NAME.conf``, and ``accounts.key`` for service accounts."""
    folder = place.runtime / "keys"
    folder.mkdir(mode=0o700)
    authority = _Authority(folder)
    served = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    authority.certify(
        "apiserver", "kube-apiserver", "kube", [place.address, place.service, "127.0.0.1"], served
    )
    for name, (common, group) in USERS.items():
        # The kubelet serves with its certificate too.
        authority.certify(name, common, group, [place.address], [NODE])
        _kubeconfig(folder, name, f"https://{place.address}:6443")
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "accounts.key", accounts)
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "accounts.pub").write_bytes(public)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(0o600)
    path.write_bytes(text)


class _Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the node's authority")])
        unsigned = self._begun(self.name, self.key).add_extension(x509.BasicConstraints(True, None), True)
        self._sign("ca", unsigned.add_extension(SIGNS, True))

    def certify(self, name: str, common: str, group: str, addresses: list[str], names: list[str]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(self.folder / f"{name}.key", key)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )
        served: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
        served += [x509.DNSName(one) for one in names]
        self._sign(name, self._begun(subject, key).add_extension(x509.SubjectAlternativeName(served), False))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        )

    def _sign(self, name: str, unsigned: x509.CertificateBuilder) -> None:
        signed = unsigned.sign(self.key, hashes.SHA256())
        (self.folder / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _kubeconfig(folder: Path, name: str, server: str) -> None:
    def text(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    user = {"client-certificate-data": text(f"{name}.crt"), "client-key-data": text(f"{name}.key")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": NODE, "cluster": {"server": server, "certificate-authority-data": text("ca.crt")}}
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": name}}],
        "current-context": NODE,
    }
    path = folder / f"{name}.conf"
    path.touch(0o600)
    path.write_text(json.dumps(content, indent=1))
