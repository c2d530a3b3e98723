"""What a decoder raises."""


class DecodeError(ValueError):
    """A message is not what its topic promises: wrong id, size, hash, field or limit.

    The text says what was expected and what was found. Decoders raise nothing else for bad bytes.
    """
