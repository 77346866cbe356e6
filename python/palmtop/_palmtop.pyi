"""The native half of the package, as `python/src` writes it. What is for users is in `palmtop`."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, final

__all__ = [
    "Array", "Busy", "Cancelled", "DeadlinePassed", "Error", "Features", "Model", "Prefix", "Session", "Watch", "__version__",
    "object_prompt", "pull", "usual_path",
]
__version__: str

class Error(RuntimeError): ...
class Busy(Error): ...
class Cancelled(Error): ...
class DeadlinePassed(Error): ...

# batch, prompt_tokens, new_tokens, pictures and draft_tokens of a session
_WantedTokens = Tuple[int, int, int, int, int]
# these, and image_side, filter, kv, threads, isa and lazy_memory
_Wanted = Tuple[_WantedTokens, int, Optional[str], str, Optional[int], Optional[str], bool]
# temperature, top_k, top_p, seed
_Sampling = Tuple[float, int, float, int]
# a mask's x, y, width, height and pixels
_MaskBytes = Tuple[int, int, int, int, bytes]
_Box = Tuple[float, float, float, float]
# label, score, box, locations, and mask
_Object = Tuple[str, Optional[float], _Box, List[int], Optional[_MaskBytes]]
# text, tokens, probabilities, why it ended, tokens of the prompt, likelihood, tokens that the draft had right, the first
# picture's size, objects
_Answered = Tuple[str, List[int], List[float], str, int, float, int, Tuple[int, int], List[_Object]]

@final
class Model:
    def __new__(cls, path: str, map: bool) -> Model: ...
    @staticmethod
    def demo() -> Model: ...
    def preload(self) -> None: ...
    def lock(self) -> None: ...
    # side of pictures, image tokens, vocabulary, generation, whether masks are decoded, and numbers of a vector
    def info(self) -> Tuple[int, int, int, int, bool, Optional[int]]: ...
    # bytes of a session, of the weights, and of the features of one picture
    def plan(self, wanted: _Wanted) -> Tuple[int, int, int]: ...

@final
class Features:
    def picture_size(self) -> Tuple[int, int]: ...

@final
class Array:
    @property
    def __array_interface__(self) -> Dict[str, Any]: ...

@final
class Prefix:
    def keys(self) -> Optional[Array]: ...
    def values(self) -> Optional[Array]: ...
    def hidden(self) -> Optional[Array]: ...
    def mask(self) -> Array: ...
    def positions(self) -> Array: ...
    def next_position(self) -> int: ...

# pictures, prompt, draft
_Asked = Tuple[Sequence[Features], str, Sequence[int]]

@final
class Session:
    def __new__(cls, model: Model, wanted: _Wanted, cores: Sequence[int], nice: Optional[int]) -> Session: ...
    def encode_file(self, file: bytes, timeout: Optional[float]) -> Features: ...
    def encode_pixels(
        self,
        pixels: bytes,
        format: str,
        width: int,
        height: int,
        stride: int,
        rotation: int,
        timeout: Optional[float],
    ) -> Features: ...
    def answer(
        self,
        requests: Sequence[_Asked],
        max_new_tokens: Optional[int],
        sampling: _Sampling,
        choices: Optional[Sequence[str]],
        timeout: Optional[float],
        on_piece: Optional[Callable[[int, str], object]],
    ) -> List[_Answered]: ...
    def prefix(
        self,
        pictures: Sequence[Optional[Features]],
        text: Optional[str],
        tokens: Sequence[int],
        open: bool,
        keep: Tuple[bool, bool],
        timeout: Optional[float],
    ) -> Prefix: ...
    def embed_picture(self, features: Features, timeout: Optional[float]) -> Array: ...
    def embed_query(self, question: str, timeout: Optional[float]) -> Array: ...
    def cancel(self) -> None: ...
    def reset_cancel(self) -> None: ...
    # seconds of encoding, prefill and decoding, decoding steps, and seconds of the last rows
    def timings(self) -> Tuple[float, float, float, int, float]: ...

# camera, question, number of the picture, seconds since 1970, since the start and of latency, text, the picture's size, JSON
_Common = Tuple[str, str, int, float, float, float, str, Tuple[int, int], str]
# whether it changes what is believed, and the likelihood of a choice
_OfAnswer = Tuple[bool, Optional[float]]
# name, phase, rule, seconds that it lasted, track, label
_OfEvent = Tuple[str, str, str, Optional[float], Optional[int], Optional[str]]
# label, score, box, track, and mask
_Found = Tuple[str, Optional[float], _Box, Optional[int], Optional[_MaskBytes]]
_Given = Tuple[_Common, Optional[_OfAnswer], Optional[_OfEvent], List[_Found]]
# counts, then percentiles 50, 95, 99 and the longest of latencies in seconds
_Numbers = Tuple[List[int], Optional[float], Optional[float], Optional[float], Optional[float]]

@final
class Watch:
    def __new__(
        cls,
        model: Model,
        toml: str,
        wanted: _Wanted,
        cores: Sequence[int],
        nice: Optional[int],
        all_answers: bool,
        recording: bool,
    ) -> Watch: ...
    @property
    def recording(self) -> bool: ...
    # bytes of the session, and of the gates
    def plan(self) -> Tuple[int, int]: ...
    def frame_file(self, camera: int, file: bytes, ago: Optional[float]) -> List[_Given]: ...
    def frame_pixels(
        self,
        camera: int,
        pixels: bytes,
        format: str,
        width: int,
        height: int,
        stride: int,
        rotation: int,
        ago: Optional[float],
    ) -> List[_Given]: ...
    def end(self) -> List[_Given]: ...
    def close(self) -> List[_Given]: ...
    def command(self, line: str) -> None: ...
    def set_prompt(self, question: str, prompt: str) -> None: ...
    def cancel(self) -> None: ...
    def reset_cancel(self) -> None: ...
    def counts(self) -> _Numbers: ...

def object_prompt(masks: bool, labels: Sequence[str]) -> str: ...
# bytes that have come, bytes in all, and notes since the last call
_Follow = Callable[[int, int, List[str]], None]

def pull(
    name: str,
    path: str,
    weights: Optional[str],
    recipe: Optional[str],
    adapters: Sequence[str],
    follow: _Follow,
) -> None: ...
def usual_path(name: str, weights: Optional[str], has_recipe: bool, adapters: Sequence[str]) -> str: ...
