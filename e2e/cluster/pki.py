"""Make the certificates of one cluster: one authority for everybody, a second for the aggregation layer.

Uses the `cryptography` package and not the openssl program: all keys and certificates take a few tens of
milliseconds, and nothing depends on which openssl a machine has. Elliptic-curve keys throughout, service account
tokens included, because generating RSA keys is what makes other harnesses slow. Knows no ports and no programs.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from e2e.cluster.realnode import ADDRESS
from e2e.cluster.supervisor import write_private

SERVER_NAMES = (
    "localhost",
    "127.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
    ADDRESS,
)
CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kwok": ("kwok", "system:masters"),  # plays every kubelet, so it may do what nodes may; its name marks its writes
    "etcd-client": ("kube-apiserver", None),
    "front-proxy-client": ("front-proxy-client", None),
}
NODE_CLIENTS = {
    "kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),  # the API server asks kubelets as this
    "kube-proxy": ("system:kube-proxy", None),
    "coredns": ("system:coredns", None),
    "network-policies": ("system:network-policies", None),
}
LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Authority:
    """A certificate and the key that signs with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def named(cls, name: str) -> Authority:
        """Make a new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, directory: Path, name: str) -> Authority:
        """Read an authority that `make` wrote."""
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory / name}.key is no elliptic-curve key, so it is not ours")
        return cls(certificate, key)

    def issue(
        self, name: str, group: str | None = None, names: Iterable[str] = ()
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Issue a certificate for a user in a group; with `names`, it serves under these as well."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(attributes), self.certificate.subject, key.public_key())
        alternatives = [_alternative(name) for name in names]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if alternatives:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return builder.sign(self.key, hashes.SHA256()), key


def make(directory: Path) -> None:
    """Write every certificate and key that is not there yet, as NAME.crt and NAME.key."""
    if (directory / "complete").exists():
        return
    directory.mkdir(mode=0o700, exist_ok=True)
    authority, front_proxy = Authority.named("modeltiers-ca"), Authority.named("modeltiers-front-proxy-ca")
    _write(directory, "ca", authority.certificate, authority.key)
    _write(directory, "front-proxy-ca", front_proxy.certificate, front_proxy.key)
    _write(directory, "server", *authority.issue("kube-apiserver", names=SERVER_NAMES))
    _write(directory, "etcd", *authority.issue("etcd", names=("localhost", "127.0.0.1")))
    for file, (user, group) in CLIENTS.items():
        issuer = front_proxy if file == "front-proxy-client" else authority
        _write(directory, file, *issuer.issue(user, group))
    signer = ec.generate_private_key(ec.SECP256R1())
    write_private(directory / "service-accounts.key", _private(signer))
    public = signer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(directory / "service-accounts.pub", public.decode())
    write_private(directory / "complete", "")  # last, so that an interrupted run starts over


def make_node(directory: Path, node: str) -> None:
    """Write the certificates that a real node of this name takes, unless they are there."""
    if (directory / f"complete-{node}").exists():
        return
    authority = Authority.read(directory, "ca")
    _write(directory, "kubelet", *authority.issue(f"system:node:{node}", "system:nodes", (node, ADDRESS)))
    for file, (user, group) in NODE_CLIENTS.items():
        _write(directory, file, *authority.issue(user, group))
    write_private(directory / f"complete-{node}", "")


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _write(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(directory / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM).decode())
    write_private(directory / f"{name}.key", _private(key))
