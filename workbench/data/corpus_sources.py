"""Public corpora: text, trees and speech that models are trained and probed on."""

from __future__ import annotations

from workbench.data.source import RAW, Source, SourceFile

CORPORA = (
    Source(
        name="tinyshakespeare",
        files=(
            SourceFile(
                "input.txt",
                f"{RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
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
                f"{RAW}/pytorch/examples/77f55b912142/word_language_model/data/wikitext-2/valid.txt",
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
                f"{RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-dev.conllu",
                "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
                1_805_545,
            ),
            SourceFile(
                "en_ewt-ud-test.conllu",
                f"{RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-test.conllu",
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
                f"{RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_train.csv",
                "b538ea2d64ed7c306ff8f010a25a5286bef6ce61d469042482ba64efc1ddd6cd",
                2_281_497,
            ),
            SourceFile(
                "tsd_trial.csv",
                f"{RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_trial.csv",
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
)
