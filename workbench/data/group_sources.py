"""Public sets of prompts and sentences that name groups of people."""

from __future__ import annotations

from workbench.data.source import RAW, Source, SourceFile

_BOLD = f"{RAW}/amazon-science/bold/3ad652c773f5/prompts"
_HOLISTIC = f"{RAW}/facebookresearch/ResponsibleNLP/0ec714eb0842/holistic_bias/dataset/v1.1"

GROUPS = (
    Source(
        name="bold",
        files=(
            SourceFile(
                "prompts/gender_prompt.json",
                f"{_BOLD}/gender_prompt.json",
                "a863aaf2492e3c911c39f435005abee2eba5f5edabe836e97de110cd83273054",
                197_705,
            ),
            SourceFile(
                "prompts/profession_prompt.json",
                f"{_BOLD}/profession_prompt.json",
                "5508012069f20419559417e64d8bb2b8d864ebf8afedd21e5ca564393c291794",
                510_740,
            ),
            SourceFile(
                "prompts/race_prompt.json",
                f"{_BOLD}/race_prompt.json",
                "200337f6c43b09671e580b1df6aea2cdc0196ee02779260e9881da07029e1cb6",
                444_732,
            ),
        ),
        page="https://github.com/amazon-science/bold",
        licence="CC BY-SA 4.0",
        citation="Dhamala et al., BOLD: Dataset and Metrics for Measuring Biases in Open-Ended Language Generation, FAccT 2021",
        items="21,056 prompts of three of its five domains",
        warning="names of real people",
    ),
    Source(
        name="holisticbias",
        files=(
            SourceFile(
                "v1.1/descriptors.json",
                f"{_HOLISTIC}/descriptors.json",
                "c1328f0edfdeefb76302d360a01878df3db55f18026f4ea1956b4a0f52daf943",
                23_463,
            ),
            SourceFile(
                "v1.1/nouns.json", f"{_HOLISTIC}/nouns.json", "9bbe15bf01ea8827fd5d68a81ee2b05e04bd5f79478d9027efec0b4dbd232ee6", 1_042
            ),
            SourceFile(
                "v1.1/sentence_templates.json",
                f"{_HOLISTIC}/sentence_templates.json",
                "8b1cf8fc3c9a10b12cf77902e8c2ff3d80e3fcfff2f177a00256925acb4f53a5",
                1_499,
            ),
        ),
        page="https://github.com/facebookresearch/ResponsibleNLP",
        licence="CC BY-SA 4.0",
        citation="Smith, Hall, Kambadur, Presani and Williams, HolisticBias, EMNLP 2022",
        items="13 axes of descriptors, 26 templates and 32 nouns",
        warning="stereotypes and offensive words for groups of people",
    ),
)
