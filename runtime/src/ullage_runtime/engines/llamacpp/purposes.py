"""What a file can be loaded for: generating, embedding or ranking."""

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.pooled import Ability
from ullage_runtime.engines.llamacpp.header import Header
from ullage_runtime.engines.llamacpp.model import Model


def check_purpose(model: Model, header: Header, purpose: Ability) -> None:
    """Raise LoadError(InvalidModel) unless the model can do what it is loaded for."""
    problem = _problem(model, header, purpose)
    if problem is not None:
        raise invalid_model(problem)


def _problem(model: Model, header: Header, purpose: Ability) -> str | None:
    match purpose:
        case Ability.GENERATE:
            if model.is_encoder:
                return "the model is an encoder and generates no text; its task is Embedding"
            if not model.generates_text:
                return "the model does not generate text: it is no plain decoder model"
        case Ability.EMBED:
            if not model.pools_text:
                return "the model embeds no text: it is neither an encoder nor a plain decoder"
        case Ability.RERANK:
            return _rerank_problem(model, header)
    return None


def judges(header: Header, purpose: Ability) -> bool:
    """Tell whether a file ranks by the words that it would answer, having no head for it."""
    return purpose is Ability.RERANK and not header.has_classifier


def _rerank_problem(model: Model, header: Header) -> str | None:
    if not header.has_classifier:
        if model.generates_text and model.chat_template:
            return None
        return (
            "the model has no head that scores a query with a document, so it is no "
            "cross-encoder, and no chat template to be asked with; with task Embedding it ranks by "
            "the cosine of its embeddings"
        )
    if not model.pools_text:
        return "the model ranks no text: it is neither an encoder nor a plain decoder"
    if model.scores != (2 if model.rerank_template else 1):
        return (
            f"the model's head gives {model.scores} scores, so it is a classifier; a reranker "
            "gives one, or with a template of its own that of yes and that of no"
        )
    return None
