"""What a file can be loaded for: generating, embedding or ranking."""

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.pooled import Ability
from ullage_runtime.engines.llamacpp.header import Header
from ullage_runtime.engines.llamacpp.model import Model


def check_purpose(model: Model, header: Header, purpose: Ability) -> None:
    """Raise LoadError(InvalidModel) unless the model can do what it is loaded for."""
    problem = _problem(model, header, purpose)
    if problem is not None:
        raise LoadError(Reason.INVALID_MODEL, problem, final=True)


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


def _rerank_problem(model: Model, header: Header) -> str | None:
    if not model.pools_text or not header.has_classifier:
        return (
            "the model has no head that scores a query with a document, so it is no "
            "cross-encoder; with task Embedding it ranks by the cosine of its embeddings"
        )
    if model.scores != 1 or model.has_rerank_template:
        return (
            "the model ranks by what it would answer, which is not supported yet; use a "
            "cross-encoder, whose head gives one score"
        )
    return None
