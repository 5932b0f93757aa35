"""Public sets of items that a suite of stereotypes or of grammar asks about."""

from __future__ import annotations

from workbench.data.source import RAW, Source, SourceFile

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

ITEMS = (
    Source(
        name="crows-pairs",
        files=(
            SourceFile(
                "crows_pairs_anonymized.csv",
                f"{RAW}/nyu-mll/crows-pairs/8aaac11c485473159ec9328a65253a5be9a479dc/data/crows_pairs_anonymized.csv",
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
        name="stereoset",
        files=(
            SourceFile(
                "race_test.json",
                f"{RAW}/zjunlp/BiasEdit/d576dd79c01c/dataset/stereoset/race_test.json",
                "2973cdf2b9b66f0dd6b40263e6acaba4ac7d8f17832e6df2f8a105e1463e6a43",
                1_993_382,
            ),
            SourceFile(
                "religion_test.json",
                f"{RAW}/zjunlp/BiasEdit/d576dd79c01c/dataset/stereoset/religion_test.json",
                "2920e1fefc8934c4847f76fe9ed46507942e966c87304e64d05d61c46782d466",
                160_556,
            ),
            SourceFile(
                "predictions/predictions_gpt2_ModelNSP_GPT2LM.json",
                f"{RAW}/moinnadeem/StereoSet/ead7d086a64a/code/predictions/predictions_gpt2_ModelNSP_GPT2LM.json",
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
                f"{RAW}/nyu-mll/BBQ/bea11bd97d79/data/Age.jsonl",
                "46e805b3fc2d8cbd26eeb8e8430d98cf7b2dc9c83574ff3674e8ce4f0fca2a60",
                3_091_834,
            ),
            SourceFile(
                "Religion.jsonl",
                f"{RAW}/nyu-mll/BBQ/bea11bd97d79/data/Religion.jsonl",
                "cb9555f9f3454a52cd2df85956b59bd7fcca5aa922c8527693b1164d08417616",
                1_118_728,
            ),
            SourceFile(
                "Physical_appearance.jsonl",
                f"{RAW}/nyu-mll/BBQ/bea11bd97d79/data/Physical_appearance.jsonl",
                "e48d7e13508565f4801574e611043470c25c95a0a62af3699cb5ee7cb02608fb",
                1_347_476,
            ),
            SourceFile(
                "results/UnifiedQA/preds_Religion.jsonl",
                f"{RAW}/nyu-mll/BBQ/bea11bd97d79/results/UnifiedQA/preds_Religion.jsonl",
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
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/pro_stereotyped_type1.txt.dev",
                "dd55a0d220fe4c0ceb63dd4648223fb4fe1a58d5ad95c116a002ad24b0e292a5",
                32_786,
            ),
            SourceFile(
                "anti_stereotyped_type1.txt.dev",
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/anti_stereotyped_type1.txt.dev",
                "a4e0ebae344e78b56f657a42e8ae684b9db7747d177c5e7149c0907ebb7f3bf6",
                32_782,
            ),
            SourceFile(
                "pro_stereotyped_type2.txt.dev",
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/pro_stereotyped_type2.txt.dev",
                "8f0250de723cea9328e3eaf7169e07936f01aa5909ce7aa580db66eb803f4e86",
                30_884,
            ),
            SourceFile(
                "anti_stereotyped_type2.txt.dev",
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/anti_stereotyped_type2.txt.dev",
                "763ad829ad724f9a85ead689ba8ca69072020cb1238def6210f0fc6a47b97e59",
                30_875,
            ),
            SourceFile(
                "male_occupations.txt",
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/male_occupations.txt",
                "6b82d88847b69d56d207a0c396e9830b031890de585e916e6b4e9bc50672657e",
                169,
            ),
            SourceFile(
                "female_occupations.txt",
                f"{RAW}/uclanlp/corefBias/0bce984dd081/WinoBias/wino/data/female_occupations.txt",
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
                f"{RAW}/alexwarstadt/blimp/3e56b06fcabc/raw_results/summary/models_summary.jsonl",
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
)
