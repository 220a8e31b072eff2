"""A time-stamping authority (RFC 3161): `openssl ts` with certificates of its own."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from tests.support.servers import program

_CONFIGURATION = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
{certs}
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class TimestampAuthority:
    """Answers queries; `ca` is the file of the certificate above its own."""

    def __init__(
        self, folder: Path, *, usage: x509.ObjectIdentifier = Usage.TIME_STAMPING,
        ends_in: timedelta = timedelta(days=1), whole_chain: bool = True,
    ) -> None:  # fmt: skip
        """`whole_chain`: its answers have the CA's certificate, too, as those of public ones."""
        self._openssl = program("openssl", "openssl")
        folder.mkdir()
        self.folder, self.ca = folder, folder / "ca.pem"
        now, ca_key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())

        def certificate(
            subject: str, public: ec.EllipticCurvePublicKey, end: datetime, is_ca: bool
        ) -> bytes:
            others = ("key_encipherment", "data_encipherment", "key_agreement",
                      "content_commitment", "encipher_only", "decipher_only")  # fmt: skip
            builder = (
                x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name("TSA CA"))
                .public_key(public).serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=30)).not_valid_after(end)
                .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
                .add_extension(x509.KeyUsage(
                    digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca,
                    **dict.fromkeys(others, False),
                ), critical=True)
            )  # fmt: skip
            if not is_ca:
                builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            return builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)

        self.ca.write_bytes(
            certificate("TSA CA", ca_key.public_key(), now + timedelta(days=2), is_ca=True)
        )
        (folder / "tsa.pem").write_bytes(
            certificate("TSA", key.public_key(), now + ends_in, is_ca=False)
        )
        (folder / "tsa.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (folder / "serial").write_text("01")
        certs = f"certs = {self.ca}" if whole_chain else ""
        (folder / "tsa.cnf").write_text(_CONFIGURATION.format(folder=folder, certs=certs))

    def answer(self, query: bytes) -> bytes:
        """The TimeStampResp for a TimeStampReq."""
        (self.folder / "query").write_bytes(query)
        self._run("ts", "-reply", "-queryfile", "query", "-out", "answer", "-config", "tsa.cnf")
        return (self.folder / "answer").read_bytes()

    def forge(self, response: bytes) -> bytes:
        """The answer of another authority, signed by this one's key instead, whatever it is for."""
        (self.folder / "theirs").write_bytes(response)
        self._run("ts", "-reply", "-in", "theirs", "-token_out", "-out", "token")
        self._run("cms", "-verify", "-noverify", "-inform", "DER", "-in", "token", "-out", "info")
        self._run("cms", "-sign", "-binary", "-nodetach", "-cades", "-nosmimecap", "-outform",
                  "DER", "-econtent_type", "1.2.840.113549.1.9.16.1.4", "-in", "info", "-out",
                  "forged", "-signer", "tsa.pem", "-inkey", "tsa.key")  # fmt: skip
        granted = b"\x30\x03\x02\x01\x00" + (self.folder / "forged").read_bytes()
        return b"\x30\x82" + len(granted).to_bytes(2) + granted

    def accepts(self, response: Path, note: Path) -> bool:
        """Whether `openssl ts -verify` finds that the answer is of the note."""
        done = self._run(
            "ts", "-verify", "-in", str(response), "-data", str(note), "-CAfile", str(self.ca)
        )
        return "Verification: OK" in done.stdout and not done.returncode

    def _run(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [self._openssl, *options]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
