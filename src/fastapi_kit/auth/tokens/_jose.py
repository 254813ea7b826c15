"""The only importer of python-jose, which signs and verifies bytes with keys that are checked here. It decodes no token."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jose import jwk
from jose.backends.base import Key as JoseKey
from jose.exceptions import JOSEError
from jose.utils import base64url_encode, long_to_base64

from fastapi_kit.errors import ConfigurationError

__all__ = ["Algorithm", "PreparedKey", "prepare_key"]

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

CURVES: Mapping[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
PSS_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {"PS256": hashes.SHA256, "PS384": hashes.SHA384, "PS512": hashes.SHA512}
MIN_RSA_BITS = 2048


class PreparedKey(NamedTuple):
    """One key, ready to sign and verify bytes."""

    signer: JoseKey | None
    """None for a public key."""
    verifier: JoseKey
    public_jwk: Mapping[str, str] | None = None
    """The public key as a JWK (RFC 7517), None for a secret."""


def prepare_key(material: bytes, algorithm: Algorithm) -> PreparedKey:
    """Return the key. *material* is a secret for HS*, else a PEM. Raises ConfigurationError if it does not fit *algorithm*."""
    if algorithm.startswith("HS"):
        secret = construct(material, algorithm)
        return PreparedKey(secret, secret)
    private, public = load_pem(material, algorithm)
    check_fit(public, algorithm)
    if algorithm == "EdDSA" or algorithm in PSS_HASHES:
        own = Ed25519Key(private, public) if algorithm == "EdDSA" else PSSKey(private, public, algorithm)
        return PreparedKey(None if private is None else own, own, own.to_dict())
    verifier = construct(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), algorithm)
    if private is None:
        return PreparedKey(None, verifier, verifier.to_dict())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return PreparedKey(construct(pem, algorithm), verifier, verifier.to_dict())


def construct(material: bytes, algorithm: Algorithm) -> JoseKey:
    """Return python-jose's key."""
    try:
        key = jwk.construct(material, algorithm)
    except JOSEError:
        raise ConfigurationError(f"the key is not one for {algorithm}") from None
    if not algorithm.startswith("HS") and type(key).__module__ != "jose.backends.cryptography_backend":
        # If cryptography cannot be imported, python-jose silently uses its own pure Python.
        raise ConfigurationError("python-jose does not use cryptography: pip install 'python-jose[cryptography]'")
    return key


def load_pem(pem: bytes, algorithm: Algorithm) -> tuple[PrivateKey | None, PublicKey]:
    """Return the private key, if *pem* has one, and the public key."""
    if b"-----BEGIN" not in pem:
        raise ConfigurationError(f"{algorithm} takes a key in PEM, with its BEGIN and END lines; plain secrets are for HS256, HS384, HS512")
    if b"BEGIN CERTIFICATE" in pem:
        raise ConfigurationError("a certificate is not a key: give the public key in it (openssl x509 -pubkey -noout)")
    try:
        if b"PRIVATE KEY-----" in pem:
            private = load_pem_private_key(pem, password=None)
            if isinstance(private, PrivateKey):
                return private, private.public_key()
        else:
            public = load_pem_public_key(pem)
            if isinstance(public, PublicKey):
                return None, public
    except TypeError:
        raise ConfigurationError("the PEM is encrypted: give it decrypted (openssl pkey), from a store of secrets") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("the PEM cannot be read: it must be whole, with its line breaks") from None
    raise ConfigurationError(f"the key is not one for {algorithm}")


def check_fit(key: PublicKey, algorithm: Algorithm) -> None:
    """Raise ConfigurationError unless *key* is of the kind and size that *algorithm* needs."""
    if algorithm == "EdDSA":
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise ConfigurationError("EdDSA takes an Ed25519 key")
    elif algorithm in CURVES:
        curve = CURVES[algorithm]
        if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curve)):
            raise ConfigurationError(f"{algorithm} takes a key on {curve.name}")
    elif not isinstance(key, rsa.RSAPublicKey):
        raise ConfigurationError(f"{algorithm} takes an RSA key")
    elif key.key_size < MIN_RSA_BITS:
        raise ConfigurationError(f"an RSA key needs at least {MIN_RSA_BITS} bits: make a new one")
    elif key.public_numbers().e < 3:
        raise ConfigurationError("the exponent of an RSA key must be at least 3: make a new one with 65537")


class Ed25519Key(JoseKey):
    """EdDSA over Ed25519 (RFC 8037), which python-jose lacks."""

    def __init__(self, private: PrivateKey | None, public: PublicKey) -> None:
        self._private, self._public = private, public

    def sign(self, msg: bytes) -> bytes:
        """Return the signature of *msg*."""
        assert isinstance(self._private, ed25519.Ed25519PrivateKey)
        return self._private.sign(msg)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether *sig* is the signature of *msg*."""
        assert isinstance(self._public, ed25519.Ed25519PublicKey)
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True

    def to_dict(self) -> dict[str, str]:
        """Return the public key as a JWK."""
        raw = self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": base64url_encode(raw).decode()}


class PSSKey(JoseKey):
    """RSASSA-PSS with a salt as long as the hash (RFC 7518, 3.5), which python-jose lacks."""

    def __init__(self, private: PrivateKey | None, public: PublicKey, algorithm: Algorithm) -> None:
        self._private, self._public, self._algorithm = private, public, algorithm
        self._hash = PSS_HASHES[algorithm]()
        self._padding = padding.PSS(padding.MGF1(self._hash), salt_length=self._hash.digest_size)

    def sign(self, msg: bytes) -> bytes:
        """Return the signature of *msg*."""
        assert isinstance(self._private, rsa.RSAPrivateKey)
        return self._private.sign(msg, self._padding, self._hash)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Return whether *sig* is the signature of *msg*."""
        assert isinstance(self._public, rsa.RSAPublicKey)
        try:
            self._public.verify(sig, msg, self._padding, self._hash)
        except InvalidSignature:
            return False
        return True

    def to_dict(self) -> dict[str, str]:
        """Return the public key as a JWK."""
        assert isinstance(self._public, rsa.RSAPublicKey)
        numbers = self._public.public_numbers()
        n, e = (long_to_base64(number).decode() for number in (numbers.n, numbers.e))
        return {"alg": self._algorithm, "kty": "RSA", "n": n, "e": e}
