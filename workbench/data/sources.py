"""Public data sets: where each comes from, what it must hash to, its licence, and how to get it.

Nothing from elsewhere is part of the product. A file is read from the mirror folder (``WORKBENCH_DATA_MIRROR``, laid out as
``<set>/<file>``) if it is there, else from the cache (``WORKBENCH_HOME/data``, or the user's cache folder), and never unless its
sha256 is right. Only ``fetch`` uses the network. A mirror file whose content is wrong is an error, not a reason to look
elsewhere: two people with the same settings read the same bytes.
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from workbench.core.errors import CorruptFile, MissingData, UnknownName
from workbench.core.protocol import Progress, silent
from workbench.data.group_sources import GROUPS
from workbench.data.safety_sources import SAFETY
from workbench.data.source import RAW as _RAW
from workbench.data.source import Source, SourceFile

MIRROR, HOME = "WORKBENCH_DATA_MIRROR", "WORKBENCH_HOME"
TIMEOUT_S = 30.0
_CHUNK = 1 << 16
_ARCHIVE = 4  # an archive is at most so many times as large as what is taken from it
# 47 of the 67 paradigms
_BLIMP = (
    "anaphor_gender_agreement", "animate_subject_passive", "animate_subject_trans", "complex_NP_island",
    "coordinate_structure_constraint_complex_left_branch", "coordinate_structure_constraint_object_extraction",
    "determiner_noun_agreement_1", "determiner_noun_agreement_2", "determiner_noun_agreement_irregular_2",
    "determiner_noun_agreement_with_adj_2", "determiner_noun_agreement_with_adj_irregular_1",
    "determiner_noun_agreement_with_adj_irregular_2", "determiner_noun_agreement_with_adjective_1",
    "distractor_agreement_relative_clause", "drop_argument", "ellipsis_n_bar_1", "existential_there_object_raising",
    "existential_there_quantifiers_1", "existential_there_subject_raising", "expletive_it_object_raising", "inchoative", "intransitive",
    "irregular_past_participle_verbs", "irregular_plural_subject_verb_agreement_1", "left_branch_island_echo_question", "npi_present_1",
    "npi_present_2", "passive_1", "passive_2", "principle_A_c_command", "principle_A_domain_1", "principle_A_reconstruction",
    "regular_plural_subject_verb_agreement_1", "regular_plural_subject_verb_agreement_2", "sentential_negation_npi_licensor_present",
    "sentential_negation_npi_scope", "sentential_subject_island", "superlative_quantifiers_1", "tough_vs_raising_1",
    "tough_vs_raising_2", "wh_questions_object_gap", "wh_questions_subject_gap", "wh_questions_subject_gap_long_distance",
    "wh_vs_that_no_gap", "wh_vs_that_no_gap_long_distance", "wh_vs_that_with_gap", "wh_vs_that_with_gap_long_distance",
)  # fmt: skip


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="crows-pairs",
            files=(
                SourceFile(
                    "crows_pairs_anonymized.csv",
                    f"{_RAW}/nyu-mll/crows-pairs/8aaac11c485473159ec9328a65253a5be9a479dc/data/crows_pairs_anonymized.csv",
                    "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c",
                    437_764,
                ),
            ),
            page="https://github.com/nyu-mll/crows-pairs",
            licence="CC BY-SA 4.0",
            citation="Nangia, Vania, Bhalerao and Bowman, CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in "
            "Masked Language Models, EMNLP 2020",
            items="1,508 sentence pairs",
            warning="stereotypes and offensive claims about groups of people",
        ),
        Source(
            name="tinyshakespeare",
            files=(
                SourceFile(
                    "input.txt",
                    f"{_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                    1_115_394,
                ),
            ),
            page="https://github.com/karpathy/char-rnn",
            licence="public-domain text; the repository is MIT",
            citation="Karpathy, char-rnn, 2015",
            items="1,115,394 characters",
        ),
        Source(
            name="wikitext-2",
            files=(
                SourceFile(
                    "valid.txt",
                    f"{_RAW}/pytorch/examples/77f55b912142/word_language_model/data/wikitext-2/valid.txt",
                    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                    1_121_681,
                ),
            ),
            page="https://github.com/pytorch/examples/tree/main/word_language_model",
            licence="CC BY-SA 3.0 (Wikipedia text); the repository is BSD-3-Clause",
            citation="Merity, Xiong, Bradbury and Socher, Pointer Sentinel Mixture Models, ICLR 2017",
            items="217,646 tokens (the validation file)",
        ),
        Source(
            name="fsdd",
            files=(
                SourceFile(
                    "recordings.zip",
                    "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/26eb9aaf76e8",
                    "2d5d3cf850bdf8cc1ded3dc085795ae409a4de5ad0bf5aa52e742d9923b17fb6",
                    13_657_820,
                    members=tuple(f"*/recordings/?_{speaker}_*.wav" for speaker in ("george", "jackson", "nicolas", "theo")),
                ),
            ),
            page="https://github.com/Jakobovski/free-spoken-digit-dataset",
            licence="CC BY-SA 4.0",
            citation="Jackson et al., Free Spoken Digit Dataset, Zenodo, 2018",
            items="2,000 recordings: 4 of its 6 speakers, 10 digits, 50 times each",
            warning="voices of named volunteers",
        ),
        Source(
            name="ud-english-ewt",
            files=(
                SourceFile(
                    "en_ewt-ud-dev.conllu",
                    f"{_RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-dev.conllu",
                    "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
                    1_805_545,
                ),
                SourceFile(
                    "en_ewt-ud-test.conllu",
                    f"{_RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-test.conllu",
                    "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
                    1_804_515,
                ),
            ),
            page="https://github.com/UniversalDependencies/UD_English-EWT",
            licence="CC BY-SA 4.0",
            citation="Silveira et al., A Gold Standard Dependency Corpus for English, LREC 2014",
            items="2,001 and 2,077 sentences (the dev and the test file)",
            warning="web text as people wrote it",
        ),
        Source(
            name="toxic-spans",
            files=(
                SourceFile(
                    "tsd_train.csv",
                    f"{_RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_train.csv",
                    "b538ea2d64ed7c306ff8f010a25a5286bef6ce61d469042482ba64efc1ddd6cd",
                    2_281_497,
                ),
                SourceFile(
                    "tsd_trial.csv",
                    f"{_RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_trial.csv",
                    "6bb8e9a16470c0269ac8727fd8bb77df68d8fb27955d9f5ff29ad724505622e8",
                    185_506,
                ),
            ),
            page="https://github.com/ipavlopoulos/toxic_spans",
            licence="CC0 1.0",
            citation="Pavlopoulos, Sorensen, Laugier and Androutsopoulos, SemEval-2021 Task 5: Toxic Spans Detection, SemEval 2021",
            items="7,939 and 690 posts with the places of their toxic characters (the train and the trial file)",
            warning="every post is toxic: hate speech, slurs, profanity",
        ),
        Source(
            name="stereoset",
            files=(
                SourceFile(
                    "race_test.json",
                    f"{_RAW}/zjunlp/BiasEdit/d576dd79c01c/dataset/stereoset/race_test.json",
                    "2973cdf2b9b66f0dd6b40263e6acaba4ac7d8f17832e6df2f8a105e1463e6a43",
                    1_993_382,
                ),
                SourceFile(
                    "religion_test.json",
                    f"{_RAW}/zjunlp/BiasEdit/d576dd79c01c/dataset/stereoset/religion_test.json",
                    "2920e1fefc8934c4847f76fe9ed46507942e966c87304e64d05d61c46782d466",
                    160_556,
                ),
                SourceFile(
                    "predictions/predictions_gpt2_ModelNSP_GPT2LM.json",
                    f"{_RAW}/moinnadeem/StereoSet/ead7d086a64a/code/predictions/predictions_gpt2_ModelNSP_GPT2LM.json",
                    "ff1751272de61feb54f0eee4e410c3a958c83a64f5408a7e1ddbcb29dc1dd498",
                    1_220_778,
                ),
            ),
            page="https://github.com/moinnadeem/StereoSet",
            licence="CC BY-SA 4.0",
            citation="Nadeem, Bethke and Reddy, StereoSet: Measuring stereotypical bias in pretrained language models, ACL 2021",
            items="962 and 77 intrasentence clusters (race and religion), and GPT-2's published scores",
            warning="stereotypes and offensive claims about groups of people",
        ),
        Source(
            name="bbq",
            files=(
                SourceFile(
                    "Age.jsonl",
                    f"{_RAW}/nyu-mll/BBQ/bea11bd97d79/data/Age.jsonl",
                    "46e805b3fc2d8cbd26eeb8e8430d98cf7b2dc9c83574ff3674e8ce4f0fca2a60",
                    3_091_834,
                ),
                SourceFile(
                    "Religion.jsonl",
                    f"{_RAW}/nyu-mll/BBQ/bea11bd97d79/data/Religion.jsonl",
                    "cb9555f9f3454a52cd2df85956b59bd7fcca5aa922c8527693b1164d08417616",
                    1_118_728,
                ),
                SourceFile(
                    "Physical_appearance.jsonl",
                    f"{_RAW}/nyu-mll/BBQ/bea11bd97d79/data/Physical_appearance.jsonl",
                    "e48d7e13508565f4801574e611043470c25c95a0a62af3699cb5ee7cb02608fb",
                    1_347_476,
                ),
                SourceFile(
                    "results/UnifiedQA/preds_Religion.jsonl",
                    f"{_RAW}/nyu-mll/BBQ/bea11bd97d79/results/UnifiedQA/preds_Religion.jsonl",
                    "6322499fca1afeb30d00f0ff87949f777ad44e24c2d0c2ecda2a3a76f16ffde3",
                    1_296_288,
                ),
            ),
            page="https://github.com/nyu-mll/BBQ",
            licence="CC BY 4.0",
            citation="Parrish et al., BBQ: A hand-built bias benchmark for question answering, Findings of ACL 2022",
            items="3,680, 1,200 and 1,576 questions (three of its eleven categories), and UnifiedQA's published answers to one",
            warning="stereotypes and offensive claims about groups of people",
        ),
        Source(
            name="winobias",
            files=(
                SourceFile(
                    "pro_stereotyped_type1.txt.dev",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/pro_stereotyped_type1.txt.dev",
                    "dd55a0d220fe4c0ceb63dd4648223fb4fe1a58d5ad95c116a002ad24b0e292a5",
                    32_786,
                ),
                SourceFile(
                    "anti_stereotyped_type1.txt.dev",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/anti_stereotyped_type1.txt.dev",
                    "a4e0ebae344e78b56f657a42e8ae684b9db7747d177c5e7149c0907ebb7f3bf6",
                    32_782,
                ),
                SourceFile(
                    "pro_stereotyped_type2.txt.dev",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/pro_stereotyped_type2.txt.dev",
                    "8f0250de723cea9328e3eaf7169e07936f01aa5909ce7aa580db66eb803f4e86",
                    30_884,
                ),
                SourceFile(
                    "anti_stereotyped_type2.txt.dev",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/anti_stereotyped_type2.txt.dev",
                    "763ad829ad724f9a85ead689ba8ca69072020cb1238def6210f0fc6a47b97e59",
                    30_875,
                ),
                SourceFile(
                    "male_occupations.txt",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/male_occupations.txt",
                    "6b82d88847b69d56d207a0c396e9830b031890de585e916e6b4e9bc50672657e",
                    169,
                ),
                SourceFile(
                    "female_occupations.txt",
                    f"{_RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/female_occupations.txt",
                    "693bff12286c2c1d46c7d4d45a44a631574710c30b39c1a3001bb7bdebb44ed8",
                    177,
                ),
            ),
            page="https://github.com/uclanlp/corefBias",
            licence="MIT",
            citation="Zhao et al., Gender Bias in Coreference Resolution: Evaluation and Debiasing Methods, NAACL 2018",
            items="4 x 396 sentences (the development halves) and 2 x 20 occupations",
            warning="occupational gender stereotypes",
        ),
        Source(
            name="blimp",
            files=(
                SourceFile(
                    "models_summary.jsonl",
                    f"{_RAW}/alexwarstadt/blimp/3e56b06fcabc/raw_results/summary/models_summary.jsonl",
                    "d54b1b361559eec9182f89930d5012af89d1a35d8e2ff435637b3166e2e3037a",
                    10_064,
                ),
                SourceFile(
                    "blimp.zip",
                    "https://codeload.github.com/alexwarstadt/blimp/zip/3e56b06fcabc",
                    "26f00593b651d4788955003ab3f313ecdf4febe8a0acd9d6e5617db230b2b83b",
                    20_517_658,
                    members=tuple(f"*/data/{paradigm}.jsonl" for paradigm in _BLIMP),
                ),
            ),
            page="https://github.com/alexwarstadt/blimp",
            licence="CC BY 4.0",
            citation="Warstadt et al., BLiMP: The Benchmark of Linguistic Minimal Pairs for English, TACL 2020",
            items="47,000 minimal pairs (47 of its 67 paradigms), and the published accuracies of four models",
        ),
        *SAFETY,
        *GROUPS,
    )
}


def source(name: str) -> Source:
    """The set of that name. Raises UnknownName."""
    if name not in SOURCES:
        raise UnknownName("data set", name, SOURCES)
    return SOURCES[name]


def mirror_folder() -> Path | None:
    """The mirror, where one is set."""
    folder = os.environ.get(MIRROR, "")
    return Path(folder) if folder else None


def cache_folder() -> Path:
    """``WORKBENCH_HOME/data`` where set, else ``assay/data`` in the user's cache folder of this system."""
    home = os.environ.get(HOME, "")
    if home:
        return Path(home) / "data"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "assay" / "data"


_verified: dict[Path, tuple[int, int, str]] = {}  # path → (mtime_ns, size, sha256): a file is hashed once a process while unchanged


def _sha256(path: Path, file: SourceFile, *, again: bool = False) -> str:
    state = path.stat()
    known = _verified.get(path)
    if known and not again and known[:2] == (state.st_mtime_ns, state.st_size):
        return known[2]
    if file.members:
        found = _packed_sha256(path, file)
    else:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    _verified[path] = (state.st_mtime_ns, state.st_size, found)
    return found


def _packed_sha256(path: Path, file: SourceFile) -> str:
    """The sha256 of what is in a zip: names and contents. CorruptFile where it cannot be opened or holds too much."""
    whole = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as pack:
            held = sum(member.file_size for member in pack.infolist())
            if held > file.size:  # known before anything is unpacked
                raise CorruptFile(path, f"a zip of {file.size} bytes in all", f"it holds {held}")
            for name in sorted(pack.namelist()):
                whole.update(f"{name} {hashlib.sha256(pack.read(name)).hexdigest()}\n".encode())
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptFile(path, "a zip file", f"it is not ({error})") from None
    return whole.hexdigest()


def _check(path: Path, file: SourceFile, name: str, *, again: bool = False) -> Path:
    found = _sha256(path, file, again=again)
    if found != file.sha256:
        raise CorruptFile(
            path,
            f"of sha256 {file.sha256[:12]}…",
            f"its content has {found[:12]}… ({path.stat().st_size} bytes, expected {file.size})",
            do=f"Delete it, then run `workbench data fetch {name}`.",
        )
    return path


def _places(name: str, file: SourceFile) -> list[Path]:
    folders = [folder for folder in (mirror_folder(), cache_folder()) if folder is not None]
    return [folder / name / file.name for folder in folders]


def path(name: str, file: str | None = None) -> Path:
    """Where a verified file of a set is: mirror first, then cache. No network.

    Raises UnknownName for a set or file there is not, MissingData when it is in neither place, CorruptFile when its sha256 is wrong.
    """
    wanted = source(name).file(file)
    places = _places(name, wanted)
    for place in places:
        if place.is_file():
            return _check(place, wanted, name)
    raise MissingData(name, [str(place) for place in places])


def available(name: str) -> bool:
    """Whether every file of a set is mirrored or cached (a file that is there but wrong raises CorruptFile)."""
    try:
        for file in source(name).files:
            path(name, file.name)
    except MissingData:
        return False
    return True


def verify(name: str) -> list[Path]:
    """Hash every file of a set again, whatever is remembered, and return where they are. Raises as ``path`` does."""
    return [_check(path(name, file.name), file, name, again=True) for file in source(name).files]


def read_text(name: str, file: str | None = None) -> str:
    """A verified UTF-8 file, byte for byte (line ends are kept)."""
    return path(name, file).read_bytes().decode()


def fetch(name: str, progress: Progress = silent) -> list[Path]:
    """Download a set into the cache and return its paths; files already there and right are left alone.

    A file is written under a temporary name, its size and sha256 checked, then renamed: under its own name it is whole or absent.
    Raises MissingData when the network cannot give it, CorruptFile when what came is not it.
    """
    wanted = source(name)
    total = sum(file.size for file in wanted.files)
    done, paths = 0, []
    for file in wanted.files:
        place = cache_folder() / name / file.name
        if not (place.is_file() and _is_right(place, file)):
            _download(name, file, place, lambda got, before=done, words=file.name: progress(before + got, total, words))
        done += file.size
        progress(done, total, file.name)
        paths.append(place)
    return paths


def _is_right(place: Path, file: SourceFile) -> bool:
    try:
        return _sha256(place, file) == file.sha256
    except CorruptFile:
        return False


def _download(name: str, file: SourceFile, place: Path, heard: Callable[[int], None]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.members:
        _pack(name, file, place, heard)
        return
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{file.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            size, found = _copy(name, file, out, heard)
        if size != file.size or found != file.sha256:
            what = f"{size} bytes of sha256 {found[:12]}… came" if size >= file.size else f"only {size} bytes came"
            raise CorruptFile(file.url, f"{file.size} bytes of sha256 {file.sha256[:12]}…", what, do="Nothing was kept; try again.")
        os.replace(temporary, place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _pack(name: str, file: SourceFile, place: Path, heard: Callable[[int], None]) -> None:
    """Download the archive, pack the chosen members under a temporary name, check what is in the pack, and rename it."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{file.name}.", suffix=".part") as folder:
        archive, made = Path(folder) / "archive.zip", Path(folder) / file.name
        with archive.open("wb") as out:
            _copy(name, replace(file, size=_ARCHIVE * file.size), out, heard)
        try:
            with zipfile.ZipFile(archive) as given, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as pack:
                chosen = [m for m in given.infolist() if any(fnmatch.fnmatchcase(m.filename, glob) for glob in file.members)]
                if sum(member.file_size for member in chosen) > file.size:
                    raise CorruptFile(file.url, f"an archive with {file.size} bytes of what is wanted", "it holds more")
                for member in chosen:
                    pack.writestr(member.filename.rsplit("/", 1)[-1], given.read(member))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise CorruptFile(file.url, "a zip file", f"it is not ({error})", do="Nothing was kept; try again.") from None
        found = _packed_sha256(made, file)
        if found != file.sha256:
            raise CorruptFile(
                file.url,
                f"an archive whose chosen members have sha256 {file.sha256[:12]}…",
                f"they have {found[:12]}…",
                do="Nothing was kept.",
            )
        os.replace(made, place)


def _copy(name: str, file: SourceFile, out: BinaryIO, heard: Callable[[int], None]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as answer:
            while size <= file.size and (chunk := answer.read(_CHUNK)):  # an endless answer ends here too
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                heard(min(size, file.size))
    except http.client.IncompleteRead as error:
        size += len(error.partial)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MissingData(name, [file.url], reason=str(getattr(error, "reason", error))) from None
    return size, digest.hexdigest()
