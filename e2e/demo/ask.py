"""Asks a policy by OpenAI's SDK and prints the answer and who gave it: `python -m e2e.demo.ask URL QUESTION`."""

from __future__ import annotations

import argparse
import sys

import openai

MODEL = "support"


def main() -> int:
    """Ask once; exit status 1 when there was no answer."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo.ask", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("question")
    parser.add_argument("--stream", action="store_true", help="print the answer as it comes")
    options = parser.parse_args()
    client = openai.OpenAI(base_url=options.url, api_key="unused", max_retries=0, timeout=60)
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": options.question}], stream=options.stream
        )
        for name in ("tier", "decision", "reason"):
            print(f"x-modeltiers-{name}: {raw.headers[f'x-modeltiers-{name}']}")
        if options.stream:
            for chunk in raw.parse():
                print("".join(choice.delta.content or "" for choice in chunk.choices), end="", flush=True)
            print()
        else:
            print(raw.parse().choices[0].message.content)
    except openai.APIError as fault:
        print(f"no answer: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
