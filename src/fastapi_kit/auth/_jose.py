"""The one door to python-jose: it signs and verifies bytes with keys that are checked here first. It reads no token."""

from collections.abc import Mapping
from typing import TypeAlias

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

from fastapi_kit.auth._codec import Algorithm, PreparedKey
from fastapi_kit.errors import ConfigurationError

_Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_Public: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_CURVES: Mapping[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {"PS256": hashes.SHA256, "PS384": hashes.SHA384, "PS512": hashes.SHA512}
_MIN_RSA_BITS = 2048
_BACK_ENDS = frozenset({"jose.backends.cryptography_backend", __name__})


def prepare(material: bytes, algorithm: Algorithm) -> PreparedKey:
    """Return the key ready for use: *material* is a secret for HS*, else a PEM. Raises ConfigurationError on a key that does not fit."""
    if algorithm.startswith("HS"):
        secret = _construct(material, algorithm)
        return _PreparedKey(secret, secret)
    private, public = _load(material, algorithm)
    _check_fit(public, algorithm)
    verifier = _construct(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), algorithm)
    if private is None:
        return _PreparedKey(None, verifier, verifier.to_dict())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _PreparedKey(_construct(pem, algorithm), verifier, verifier.to_dict())


class _PreparedKey:
    def __init__(self, signer: JoseKey | None, verifier: JoseKey, public_jwk: Mapping[str, str] | None = None) -> None:
        self._signer = signer
        self._verifier = verifier
        self._public_jwk = public_jwk

    @property
    def can_sign(self) -> bool:
        return self._signer is not None

    def sign(self, message: bytes) -> bytes:
        if self._signer is None:
            raise ConfigurationError("the key is public and can only verify: give the private key, and put it first, to sign tokens")
        return self._signer.sign(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        return self._verifier.verify(message, signature)

    def public_jwk(self) -> Mapping[str, str] | None:
        return self._public_jwk


def _construct(material: bytes, algorithm: Algorithm) -> JoseKey:
    if algorithm in _OWN_KEYS:
        # Each time: another package of the process may have registered a class of its own.
        jwk.register_key(algorithm, _OWN_KEYS[algorithm])
    try:
        key = jwk.construct(material, algorithm)
    except JOSEError:
        raise ConfigurationError(f"the key is not one for {algorithm}") from None
    if not algorithm.startswith("HS") and type(key).__module__ not in _BACK_ENDS:
        # Where cryptography does not import, jose falls back to pure Python without a word.
        raise ConfigurationError("python-jose does not use cryptography: pip install 'python-jose[cryptography]'")
    return key


def _load(pem: bytes, algorithm: Algorithm) -> tuple[_Private | None, _Public]:
    if b"-----BEGIN" not in pem:
        raise ConfigurationError(f"{algorithm} takes a key in PEM, with its BEGIN and END lines; plain secrets are for HS256, HS384, HS512")
    if b"BEGIN CERTIFICATE" in pem:
        raise ConfigurationError("a certificate is no key: give the public key in it (openssl x509 -pubkey -noout)")
    try:
        if b"PRIVATE KEY-----" in pem:
            private = load_pem_private_key(pem, password=None)
            if isinstance(private, _Private):
                return private, private.public_key()
        else:
            public = load_pem_public_key(pem)
            if isinstance(public, _Public):
                return None, public
    except TypeError:
        raise ConfigurationError("the PEM is encrypted: give it decrypted (openssl pkey), from a store of secrets") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("the PEM cannot be read: it must be whole, with its line breaks") from None
    raise ConfigurationError(f"the key is not one for {algorithm}")


def _check_fit(key: _Public, algorithm: Algorithm) -> None:
    if algorithm == "EdDSA":
        _demand(isinstance(key, ed25519.Ed25519PublicKey), "EdDSA takes an Ed25519 key")
    elif algorithm in _CURVES:
        curve = _CURVES[algorithm]
        _demand(isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curve), f"{algorithm} takes a key on {curve.name}")
    else:
        _check_rsa(key, algorithm)


def _check_rsa(key: _Public, algorithm: Algorithm) -> None:
    if not isinstance(key, rsa.RSAPublicKey):
        raise ConfigurationError(f"{algorithm} takes an RSA key")
    _demand(key.key_size >= _MIN_RSA_BITS, f"an RSA key needs at least {_MIN_RSA_BITS} bits: make a new one")
    _demand(key.public_numbers().e >= 3, "the exponent of an RSA key must be at least 3: make a new one with 65537")


def _demand(fulfilled: bool, message: str) -> None:
    if not fulfilled:
        raise ConfigurationError(message)


class _Ed25519Key(JoseKey):
    """EdDSA over Ed25519 (RFC 8037), which python-jose lacks."""

    def __init__(self, key: str | bytes, algorithm: str) -> None:
        private, self._public = _load(_as_bytes(key), "EdDSA")
        _check_fit(self._public, "EdDSA")
        self._private = private

    def sign(self, msg: bytes) -> bytes:
        assert isinstance(self._private, ed25519.Ed25519PrivateKey)
        return self._private.sign(msg)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        assert isinstance(self._public, ed25519.Ed25519PublicKey)
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True

    def to_dict(self) -> dict[str, str]:
        raw = self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": base64url_encode(raw).decode()}


class _PSSKey(JoseKey):
    """RSASSA-PSS, the salt as long as the hash (RFC 7518, 3.5), which python-jose lacks."""

    def __init__(self, key: str | bytes, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = _HASHES[algorithm]()
        self._padding = padding.PSS(padding.MGF1(self._hash), salt_length=self._hash.digest_size)
        self._private, self._public = _load(_as_bytes(key), "PS256")
        _check_rsa(self._public, "PS256")

    def sign(self, msg: bytes) -> bytes:
        assert isinstance(self._private, rsa.RSAPrivateKey)
        return self._private.sign(msg, self._padding, self._hash)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        assert isinstance(self._public, rsa.RSAPublicKey)
        try:
            self._public.verify(sig, msg, self._padding, self._hash)
        except InvalidSignature:
            return False
        return True

    def to_dict(self) -> dict[str, str]:
        assert isinstance(self._public, rsa.RSAPublicKey)
        numbers = self._public.public_numbers()
        return {
            "alg": self._algorithm,
            "kty": "RSA",
            "n": long_to_base64(numbers.n).decode(),
            "e": long_to_base64(numbers.e).decode(),
        }


def _as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


_OWN_KEYS: Mapping[str, type[JoseKey]] = {"EdDSA": _Ed25519Key, **dict.fromkeys(_HASHES, _PSSKey)}
