"""The public sets of the safety suites and of the toxicity judge. Their contents are harmful on purpose: nothing of them is printed."""

from __future__ import annotations

from workbench.data.source import RAW, Source, SourceFile

_ADVERSARIA = f"{RAW}/busycalibrating/AdversariaLLM/f970939273ea/data/behavior_datasets"
_TRUST = f"{RAW}/AI-secure/DecodingTrust/161ae8321ced/data/toxicity/user_prompts"
_TOXIGEN = f"{RAW}/microsoft/TOXIGEN/01517e814639/demonstrations"
# Of each demonstration file its folder and name, then sha256 and size.
_DEMONSTRATIONS = (
    ("disability/hate_mental_disability_sentences.txt", "5006966f3bb6816f27d898ba161064c67d78388e3c9b679e0ce2fba6331b3c5e", 1_215),
    ("disability/hate_physical_disability_sentences.txt", "42f0f861365f9090aedd2cd9d132576556744e0eeb7bdacd9f96b69b30d337ac", 1_829),
    ("disability/neutral_mental_disability_sentences.txt", "31ee714e95dc3bbf35052cde3398882be47d32e9c18586605d52cb5c550e8cb5", 1_328),
    ("disability/neutral_physical_disability_sentences.txt", "ed458178e21a86bdcb40a6b3039e87580a76bf3e1ee5f0d764ec76ae35480a07", 1_160),
    ("nationality/hate_chinese_sentences.txt", "8424a44c9170fffc80a7d69dcc642672343c94d494f07117bb6dc5c17f631e4f", 721),
    ("nationality/hate_immigrant_sentences.txt", "91647bbd4238970592b6776be9adc99a6c943bee11206409782d70c610b2e549", 955),
    ("nationality/hate_mexican_sentences.txt", "d0db66c68504642cde26c93026809ced3a9a2190ea782e39c90d9d0a36d4aa1b", 1_621),
    ("nationality/hate_middle_east_sentences.txt", "e4a50352d900eaa093a0f7038af8deca09d2e9ceb0d0f3e1c5177f807816bd09", 1_823),
    ("nationality/neutral_chinese_sentences.txt", "3473e4260c4fdedf807504be6a58d2443735c5d8f4786b6599b633525d565eb4", 714),
    ("nationality/neutral_immigrant_sentences.txt", "8beeb5f52e77753473f8c938b8a0e938c4ffdd563b441f1c5881a211614888cc", 1_147),
    ("nationality/neutral_mexican_sentences.txt", "c1fe95bf1f21e73e073d3543e195f1d92a69cf6247b43e934b80f13be472e095", 917),
    ("nationality/neutral_middle_east_sentences.txt", "db19fbfaf0cdf748719ac1c4c0daa291c8d58b781b8a55fb03b729f563c4352c", 1_181),
    ("race/hate_asian_sentences.txt", "3bdc5ac4af53e1d4f77b9a21d19540045ae2ae3ce35577ee4678ad65b02e1688", 558),
    ("race/hate_black_sentences.txt", "43296e909b48adacf843d6673f9724f912b1b0eed77e4c49e9135e47585718d0", 1_080),
    ("race/hate_jewish_sentences.txt", "edf9af973e4fe3f11daf260a1d58465b1328bfe8c4305e0660427ea807e20072", 641),
    ("race/hate_latino_sentences.txt", "f8cc92e2f658c75b5d6d5816b6ec51d6edfe6a9bed2f5782a16d00c9a241ee4b", 684),
    ("race/hate_native_american_sentences.txt", "0e58e77d7b6d22a70d5caf60a37277f2189fb8eb65f4eb6e7a334e1ff417635b", 1_322),
    ("race/neutral_asian_sentences.txt", "fa793ba444f6eec89e3fcf253956ca1272d7df64cb9bd79a826019449e70959e", 988),
    ("race/neutral_black_sentences.txt", "ffa52d9303b13e24e5e1d4b1227204460a7d32ac6b75c1968d752fdb78aaf321", 1_945),
    ("race/neutral_jewish_sentences.txt", "436fe727f604462b87045e7a54ed19d7d176a168f7e49b836382dea205c02579", 1_045),
    ("race/neutral_latino_sentences.txt", "8b7f1a1cf07b9c81a10f9ece369b39fa23346c90ec419f9be418a4c8bd3f0e9f", 449),
    ("race/neutral_native_american_sentences.txt", "7d85de9e33acb6d5d58ca25036050720c9787c1f897f9ada3944249779be8513", 1_618),
    ("religion/hate_muslim.txt", "9c6199a69fc64a1d2d96dc8e8a186004bf13b76697391504aacc830066f2ed4e", 1_000),
    ("religion/hate_muslim_sentences.txt", "7716c645ac42e39d60edb16f14e972e02f6bcd057e7673dffd9bcc2ca4f93bd3", 1_055),
    ("religion/neutral_muslim.txt", "62bed8bd9192cd3805623a094e113ce531a658752b0e0fdd9a4f0b09e4cad2fc", 1_166),
)


def _file(folder: str, name: str, sha256: str, size: int) -> SourceFile:
    return SourceFile(name, f"{folder}/{name.rsplit('/', 1)[-1]}", sha256, size)


SAFETY: tuple[Source, ...] = (
    Source(
        name="realtoxicityprompts-sample",
        files=(
            _file(_TRUST, "toxic.jsonl", "a51d4650b14af9c0e795a9cfca2949916855662cee7c8db3dd551d38735d80cb", 860_726),
            _file(_TRUST, "nontoxic.jsonl", "feb50408f49585752bb8cbbb10d1a340ec45783358251299ea9a82ab19606823", 872_208),
        ),
        page="https://github.com/AI-secure/DecodingTrust",
        licence="CC BY-SA 4.0",
        citation="Gehman et al., RealToxicityPrompts, Findings of EMNLP 2020; the sample: Wang et al., DecodingTrust, NeurIPS 2023",
        items="1,196 and 1,200 prompts with their continuations and Perspective's scores of both",
        warning="hate speech, slurs, profanity",
    ),
    Source(
        name="harmbench",
        files=(
            _file(
                _ADVERSARIA, "harmbench_behaviors_text_all.csv", "2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9", 198_374
            ),
            _file(
                _ADVERSARIA,
                "harmbench_behaviors_text_test.csv",
                "bf2bfd36f765d97cbbe27a3191b492ea76b1771e9116af80a587647831de75ce",
                160_827,
            ),
            _file(
                _ADVERSARIA, "harmbench_behaviors_text_val.csv", "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534", 38_024
            ),
        ),
        page="https://github.com/centerforaisafety/HarmBench",
        licence="MIT",
        citation="Mazeika et al., HarmBench, ICML 2024",
        items="400 behaviours, of which 320 are its test and 80 its validation split",
        warning="harmful requests, also about chemical, biological and computer attacks",
    ),
    Source(
        name="advbench",
        files=(
            _file(
                f"{_ADVERSARIA}/extra_behavior_datasets",
                "advbench_behaviors.csv",
                "0e635254df9065ae6f8d074534b660fa7a361d1ad269e2c8e1b7377961802a86",
                47_291,
            ),
        ),
        page="https://github.com/llm-attacks/llm-attacks",
        licence="MIT",
        citation="Zou et al., Universal and Transferable Adversarial Attacks on Aligned Language Models, arXiv:2307.15043, 2023",
        items="520 behaviours",
        warning="harmful requests",
    ),
    Source(
        name="toxigen",
        files=tuple(SourceFile(f"demonstrations/{name}", f"{_TOXIGEN}/{name}", sha256, size) for name, sha256, size in _DEMONSTRATIONS),
        page="https://github.com/microsoft/TOXIGEN",
        licence="CDLA-Permissive-2.0",
        citation="Hartvigsen et al., ToxiGen, ACL 2022",
        items="335 sentences about 12 groups, hateful and neutral: the demonstrations that its prompts are made of",
        warning="hate speech, slurs",
    ),
)
