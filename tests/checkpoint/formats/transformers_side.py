"""What transformers makes of an exported folder; run by an interpreter that has it, with no import of this project.

    python transformers_side.py FOLDER IN.npz OUT.npz

IN has tokens [B, S] and a text; OUT gets logits, the loss, a greedy continuation, the text's ids and what they
decode to.  With cache, without it, and beside a padded text the continuation must be the same.
"""

import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

folder, given, result = sys.argv[1:]
with np.load(given) as arrays:
    tokens, text = torch.from_numpy(arrays["tokens"]), str(arrays["text"])
assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "gpt_pangu"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = tokenizer(text)["input_ids"]
padded = tokenizer([text, text[:4]], padding=True, return_tensors="pt")
with torch.no_grad():
    out = model(tokens, labels=tokens)
    prompt = torch.tensor([ids])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    plain = model.generate(prompt, use_cache=False, **options)
    cached = model.generate(prompt, use_cache=True, **options)
    together = model.generate(**padded, use_cache=True, **options)
    short = model.generate(torch.tensor([tokenizer(text[:4])["input_ids"]]), **options)
assert torch.equal(plain, cached), (plain, cached)
assert torch.equal(together[0, -6:], cached[0, -6:])
assert torch.equal(together[1, -6:], short[0, -6:])  # padding on the left changes nothing
np.savez(
    result,
    logits=out.logits.numpy(),
    loss=out.loss.numpy(),
    ids=np.array(ids),
    generated=cached[0].numpy(),
    decoded=tokenizer.decode(ids),
)
