"""The model families: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

FAMILIES = Catalog(
    "family",
    {
        "gpt": ("workbench.families.gpt:GPT", "decoder-only language model", "headline"),
        "bert": ("workbench.families.bert:BERT", "bidirectional encoder", "standard"),
        "seq2seq": ("workbench.families.seq2seq:Seq2Seq", "encoder-decoder with cross-attention", "standard"),
        "whisper": ("workbench.families.whisper:Whisper", "encoder of sound, decoder of text", "standard"),
        "vit": ("workbench.families.vit:ViT", "image classifier over patches", "standard"),
        "dalle": ("workbench.families.dalle:Dalle", "text and image codes in one decoder", "standard"),
        "imagen": ("workbench.families.imagen:Imagen", "text-conditioned diffusion over patches", "standard"),
        "clip": ("workbench.families.clip:CLIP", "images and texts in one space", "standard"),
    },
)
