"""A reason in words, written by the language model itself: plausible text, not evidence.

Only a model that was taught to answer (its tokenizer has a chat template) is asked; adapters are switched off, because
a run that learnt to name titles no longer answers otherwise. What the numbers say is put into the question, so that the
text speaks of the items that counted; nothing makes sure that it does.
"""

from contextlib import nullcontext

import torch
from peft import PeftModel

from catalign.errors import UserError
from catalign.explain.explanation import Explanation
from catalign.model.language_model import LanguageModel

LONGEST = 120  # tokens of a reason


@torch.no_grad()
def written_reason(model: LanguageModel, explanation: Explanation) -> str:
    """Let the model say in a sentence or two why the item may suit this person; greedy, so repeatable.

    Raises:
        UserError: the model has no chat template, so it was never taught to answer a question.
    """
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None:
        raise UserError(
            "this model cannot write a reason: it has no chat template, so it was not taught to answer questions",
            where="--reason", mend="use a run of an instruction-tuned model, or leave the reason out",
        )  # fmt: skip
    question = [{"role": "user", "content": _question(explanation)}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    # The template writes the special tokens that it wants, as text.
    encoded = tokenizer(str(prompt), add_special_tokens=False, return_tensors="pt").to(model.device)
    adapter_off = model.causal.disable_adapter() if isinstance(model.causal, PeftModel) else nullcontext()
    with model.evaluating(), adapter_off:
        written: torch.Tensor = model.base.generate(  # type: ignore[operator]
            **encoded, max_new_tokens=LONGEST, do_sample=False, pad_token_id=model.end_token
        )
    text = tokenizer.decode(written[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return " ".join(str(text).split())


def _question(explanation: Explanation) -> str:
    """What the model is asked; titles are quoted data."""
    ordered = sorted(explanation.contributions, key=lambda part: -part.moved)
    history = "\n".join(f"- {part.title!r} (weight {part.moved:+.2f})" for part in ordered)
    return (
        f"A shop recommends {explanation.title!r} to a person who chose these items; a weight above 0 means that the "
        f"item made the recommendation more likely:\n{history}\n\n"
        "Say in one or two sentences why the recommendation may suit this person. Name only items of the list."
    )
