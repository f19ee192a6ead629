"""The data card that may travel beside a result: for people, so of no meaning to what follows."""

from typing import Any, Final

from shepherd.wire import strict_json

#: Bytes of a card as JSON; a larger one is left out by who reads the message.
CARD_LIMIT: Final = 32 * 1024


def parse_card(document: Any) -> dict[str, Any] | None:
    """Return the card, or None for what isn't one: a wrong card must not cost the result that it describes."""
    if not isinstance(document, dict) or len(strict_json.dumps(document)) > CARD_LIMIT:
        return None
    return document
