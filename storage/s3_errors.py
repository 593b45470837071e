"""What S3 and its client library raise, as our errors: who can do something about it, and what."""

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from schemas.errors import ObjectMissingError, RushesError, StorageError, StorageUnavailableError

# Answers below 500 that another attempt may cure.
_TRANSIENT_CODES = {
    "BadDigest",  # Corrupted on the way.
    "ConditionalRequestConflict",
    "IncompleteBody",
    "NoSuchUpload",  # A large upload that the server forgot: it starts anew.
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_TRANSIENT_STATUS = {408, 409, 425, 429}
_MISSING_CODES = {"NoSuchKey", "404", "NotFound"}
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist there: create it, or correct the bucket's name or AWS_ENDPOINT_URL",
    "AccessDenied": f"these credentials may not do that: grant it, or set other {_KEYS}",
    "403": f"these credentials may not do that: grant it, or set other {_KEYS}",
    "AllAccessDisabled": "the store has disabled all access to the bucket",
    "InvalidAccessKeyId": f"the store does not know this access key: correct {_KEYS}, or AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret does not fit the access key: correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's credentials have expired: renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is not valid: correct or unset AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_REGION",
    "301": "the bucket is in another region: set AWS_REGION",
    "MethodNotAllowed": "the endpoint does not take this request: is AWS_ENDPOINT_URL an S3 endpoint?",
}
_NO_ANSWER = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    ConnectionError,
    TimeoutError,
)


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translated(error: Exception, what: str, where: str) -> RushesError:
    """The error to raise instead. `what` is the act on the object ("write s3://b/k"), `where` the endpoint."""
    if isinstance(error, ClientError):
        return _of_answer(error, f"cannot {what} at {where}")
    prefix = f"cannot {what} at {where}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return StorageError(f"{prefix}: no usable credentials ({error}): set {_KEYS}, or AWS_PROFILE")
    if isinstance(error, NoRegionError):
        return StorageError(f"{prefix}: set AWS_REGION")
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StorageError(f"{prefix}: its certificate is not trusted ({error}): set AWS_CA_BUNDLE")
    if isinstance(error, _NO_ANSWER):
        return StorageUnavailableError(f"{prefix}: no answer ({error})")
    if isinstance(error, S3UploadFailedError):
        return StorageUnavailableError(f"{prefix}: {error}")
    if isinstance(error, BotoCoreError | ValueError | OSError):  # ValueError: a malformed endpoint URL.
        return StorageError(f"{prefix}: {error}")
    raise error


def _of_answer(error: ClientError, prefix: str) -> RushesError:
    code, status = code_of(error), status_of(error)
    said = error.response.get("Error", {}).get("Message", "")
    text = f"{prefix}: {code} {said}".rstrip()
    if code in _MISSING_CODES:
        return ObjectMissingError(f"{prefix}: no such object")
    advice = _ADVICE.get(code)
    if advice is not None:
        return StorageError(f"{prefix}: {code}: {advice}")
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS or (status >= 500 and status != 501):
        return StorageUnavailableError(text)
    return StorageError(text)
