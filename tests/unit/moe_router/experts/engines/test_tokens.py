from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.prompting import Template
from tests.unit.moe_router.experts import tiny


@pytest.fixture(scope="module")
def tokens() -> HfTokens:
    return HfTokens(tiny.tokenizer(), max_text_tokens=8)


def test_a_prompt_is_head_and_tail(tokens: HfTokens) -> None:
    own = tiny.tokenizer()
    prompt = tokens.prompt(Template("Text: {{input}}\nLabel:"), {"input": "card"}, "x")
    assert own.decode(prompt.head) == "<bos>Text:"
    assert own.decode(prompt.tail) == " card\nLabel:"
    assert prompt.adapter == "x"


def test_what_the_tokenizer_never_puts_first_is_not_put_first() -> None:
    own = tiny.tokenizer()
    own.backend_tokenizer.post_processor = processors.ByteLevel()
    assert own.bos_token_id is not None
    prompt = HfTokens(own, max_text_tokens=8).prompt(Template("Text: {{input}}"), {"input": "card"}, None)
    assert own.decode(prompt.head) == "Text:"


def test_an_end_that_the_tokenizer_adds_is_none_of_a_prompt() -> None:
    own = tiny.tokenizer()
    special = [("<bos>", 0), ("<eos>", 1)]
    own.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=special
    )
    prompt = HfTokens(own, max_text_tokens=8).prompt(Template("Text: {{input}}"), {"input": "card"}, None)
    assert own.decode(prompt.head) == "<bos>Text:"


def test_padding_and_truncation_saved_with_a_tokenizer_are_left_out(tokens: HfTokens) -> None:
    own = tiny.tokenizer()
    own.backend_tokenizer.enable_padding(length=20)
    own.backend_tokenizer.enable_truncation(max_length=2)
    template, values = Template("Text: {{input}}\nLabel:"), {"input": "card arrival <eos>"}
    found = HfTokens(own, max_text_tokens=8).prompt(template, values, None)
    assert found == tokens.prompt(template, values, None)


def test_control_tokens_count_in_templates_only(tokens: HfTokens) -> None:
    [control] = tiny.tokenizer().convert_tokens_to_ids(["<start_of_turn>"])
    template = Template("<start_of_turn>{{input}}<start_of_turn>")
    prompt = tokens.prompt(template, {"input": "<start_of_turn>"}, None)
    assert [*prompt.head, *prompt.tail].count(control) == 2
    assert control not in tokens.encode("a <start_of_turn> b", trusted=False)


def test_control_tokens_of_a_unigram_model_count_in_templates_only() -> None:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>", "</s>", "<|user|>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    sentences = ["a card payment was declined < / s > in the shop", "hello | user"] * 30
    made.train_from_iterator(sentences + tiny.SENTENCES * 5, trainer)
    made.add_tokens(["<|turn|>", "Zyx"])  # undeclared, and beyond the vocabulary; a word
    own = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokens = HfTokens(own, max_text_tokens=50)
    control = {*range(1, 4), len(own) - 2}
    assert not control & {*tokens.encode("card</s>pay <s> <|user|>a<|turn|>", trusted=False)}
    assert control == {*tokens.encode("</s><s><|user|><|turn|>", trusted=True)} - {0} - {
        *tokens.encode("|", trusted=True)
    }
    plain = "a card payment was declined Zyx"
    assert len(own) - 1 in tokens.encode(plain, trusted=False)
    assert tokens.encode(plain, trusted=False) == tokens.encode(plain, trusted=True)


@pytest.mark.parametrize(
    "marker",
    [
        "<|User|>",
        "<|im_start|>",
        "<｜Assistant｜>",
        "<end_of_turn>",
        "</tool_call>",
        "<think>",
        "[INST]",
        "[/INST]",
    ],
)
def test_a_marker_that_is_not_declared_as_one_counts_in_templates_only(marker: str) -> None:
    own = tiny.tokenizer()
    own.add_tokens([AddedToken(marker, special=False, normalized=False)])
    [control] = own.convert_tokens_to_ids([marker])
    tokens = HfTokens(own, max_text_tokens=8)
    assert control in tokens.encode(f"a {marker} b", trusted=True)
    spelled = tokens.encode(f"a {marker} b", trusted=False)
    assert control not in spelled
    assert own.decode(spelled) == f"a {marker} b"


@pytest.mark.parametrize("added", ["\n\n\n", "\t\t", "<h1>", "</table>", "[x]", "card_arrival"])
def test_other_added_tokens_are_read_in_texts(added: str) -> None:
    own = tiny.tokenizer()
    own.add_tokens([AddedToken(added, special=False, normalized=False)])
    [token] = own.convert_tokens_to_ids([added])
    assert token in HfTokens(own, max_text_tokens=8).encode(f"a{added}b", trusted=False)


def test_a_long_value_is_cut_at_its_end(tokens: HfTokens) -> None:
    long = "card arrival " * 10_000
    prompt = tokens.prompt(Template("{{input}}\nLabel:"), {"input": long}, None)
    assert len(prompt.tail) == 8 + len(tokens.encode("\nLabel:", trusted=True))
    assert prompt.cut


def test_what_the_template_says_is_never_cut(tokens: HfTokens) -> None:
    template = Template("{{input}}\n" + "Label: " * 20)
    assert not tokens.prompt(template, {"input": "card"}, None).cut


def test_a_prompt_without_a_tail_keeps_its_last_token_to_compute(tokens: HfTokens) -> None:
    prompt = tokens.prompt(Template("Text:{{input}}"), {"input": ""}, None)
    assert len(prompt.tail) == 1


def test_a_dummy_space_begins_no_piece() -> None:
    own = Tokenizer(models.WordLevel({"▁a": 0, "a": 1, "|": 2, "▁|": 3, "?": 4}, unk_token="?"))
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split("a", "isolated")]
    )
    tokens = HfTokens(PreTrainedTokenizerFast(tokenizer_object=own), max_text_tokens=8)
    assert tokens.encode("a", trusted=True) == (1,)


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelAssetError, match="no fast form"):
        HfTokens(object(), max_text_tokens=8)


def test_values_are_cut_to_what_the_model_reads_with_its_answer() -> None:
    template, values = Template("Text: {{input}}\nLabel:"), {"input": "card arrival " * 9}
    tokens = HfTokens(tiny.tokenizer(), max_text_tokens=200, context=20)
    prompt = tokens.prompt(template, values, None, answer=3)
    assert len(prompt.head) + len(prompt.tail) == 17
    assert (prompt.cut, prompt.input_cut) == (True, True)
    assert tiny.tokenizer().decode(prompt.tail).endswith("\nLabel:")
    whole = HfTokens(tiny.tokenizer(), max_text_tokens=200).prompt(template, values, None, answer=3)
    assert len(whole.tail) > 17
    assert not whole.cut


def test_of_several_values_the_longest_are_cut_first() -> None:
    template = Template("{{query}}\n{{input}}\n:")
    tokens = HfTokens(tiny.tokenizer(), max_text_tokens=200, context=20)
    prompt = tokens.prompt(template, {"query": "card", "input": "card arrival " * 9}, None)
    assert len(prompt.head) + len(prompt.tail) == 20
    assert tiny.tokenizer().decode(prompt.tail).startswith("card\n")
    assert prompt.input_cut
    prompt = tokens.prompt(template, {"query": "card arrival " * 9, "input": "card"}, None)
    assert tiny.tokenizer().decode(prompt.tail).endswith("\ncard\n:")
    assert (prompt.cut, prompt.input_cut) == (True, False)


def test_a_template_that_fills_the_context_leaves_nothing_of_a_value() -> None:
    tokens = HfTokens(tiny.tokenizer(), max_text_tokens=200, context=4)
    prompt = tokens.prompt(Template("Text: some words {{input}}\nLabel:"), {"input": "card"}, None)
    assert "card" not in tiny.tokenizer().decode(prompt.tail)
    assert prompt.input_cut
