"""The catalogue of instruments. Adding one is a file and a line; nothing listed is imported until it is used."""

from workbench.core.catalog import Catalog

INSTRUMENTS = Catalog(
    "instrument",
    {
        "integrated-gradients": ("probes.integrated_gradients:INSTRUMENT", "how much each input token moved the answer", "headline"),
        "direct-logit-attribution": (
            "probes.direct_logit_attribution:INSTRUMENT",
            "what each head and MLP writes into the answer",
            "headline",
        ),
        "logit-lens": ("probes.logit_lens:INSTRUMENT", "what the model would answer after each layer", "headline"),
        "probing": ("probes.probing:INSTRUMENT", "what a linear map reads at each layer, with controls", "headline"),
        "concept-direction": ("probes.concept_direction:INSTRUMENT", "in which direction of each layer a concept lies", "standard"),
        "steering": ("probes.steering:INSTRUMENT", "what pushing along a concept does, and its price", "standard"),
        "erasure": ("probes.erasure:INSTRUMENT", "what is known and done once a concept is erased", "standard"),
        "interchange": ("probes.interchange:INSTRUMENT", "in which directions exchanged activations carry the answer along", "standard"),
        "similarity": ("probes.similarity:INSTRUMENT", "how alike layers are, and where two models part", "standard"),
        "data-attribution": ("probes.data_attribution:INSTRUMENT", "which training rows gave the model its answer", "standard"),
        "description-length": ("probes.description_length:INSTRUMENT", "how few bits labels take, given each layer", "standard"),
        "structural-probe": ("probes.structural_probe:INSTRUMENT", "whether words lie as in their parse tree", "experimental"),
        "tuned-lens": ("probes.tuned_lens:INSTRUMENT", "each layer read in the last layer's terms, fitted", "standard"),
        "sparse-dictionary": ("probes.sparse_dictionary:INSTRUMENT", "few of many directions, and what they keep", "standard"),
        "composition-scores": ("probes.composition_scores:INSTRUMENT", "which heads can feed which later heads, by weights", "standard"),
        "value-norms": ("probes.value_norms:INSTRUMENT", "how much each head brings from each token", "standard"),
        "edge-attribution-patching": ("probes.edge_attribution_patching:INSTRUMENT", "which edges between parts carry answers", "headline"),
        "circuit-discovery": ("probes.circuit_discovery:INSTRUMENT", "which few edges give the answer alone, how faithfully", "headline"),
        "path-patching": ("probes.path_patching:INSTRUMENT", "what one part sends to another on the direct way", "standard"),
        "activation-patching": ("probes.activation_patching:INSTRUMENT", "which activations carry the answer between two runs", "headline"),
        "attribution-patching": (
            "probes.attribution_patching:INSTRUMENT",
            "the same for all cells at once, by slope",
            "headline",
        ),
        "attention-pattern": ("probes.attention_pattern:INSTRUMENT", "which earlier tokens each head reads from", "standard"),
        "attention-rollout": ("probes.attention_rollout:INSTRUMENT", "attention followed back through all layers", "standard"),
        "head-scores": (
            "probes.head_scores:INSTRUMENT",
            "previous-token, duplicate, induction, positional behaviour and entropy of each head",
            "standard",
        ),
        "saliency": ("probes.saliency:INSTRUMENT", "where a small change would move the answer most", "standard"),
        "input-x-gradient": ("probes.input_x_gradient:INSTRUMENT", "first-order effect of taking each token's embedding away", "standard"),
        "occlusion": ("probes.occlusion:INSTRUMENT", "what the answer loses without a token or group", "standard"),
        "shapley": ("probes.shapley:INSTRUMENT", "what each token adds, over all orders of coming in", "standard"),
        "gradient-shap": ("probes.gradient_shap:INSTRUMENT", "expected gradients between drawn baselines and a noisy input", "standard"),
        "smooth-grad": ("probes.smooth_grad:INSTRUMENT", "saliency averaged over noisy copies of the input", "standard"),
        "generation-attribution": ("probes.generation_attribution:INSTRUMENT", "what each token a model writes was read from", "standard"),
        "explanation-quality": ("probes.explanation_quality:INSTRUMENT", "what an attribution is worth beside random ones", "standard"),
    },
)
