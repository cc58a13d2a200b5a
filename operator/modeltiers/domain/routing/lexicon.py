"""Words that hint at a kind of task or at difficulty, by feature: English, and some German, French, Spanish, Chinese.

Whole words in lower case. A word that is common in ordinary talk is left out: it would say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "code_words": """
        api array async bash bug class code codebase compile compiler css database debug def deploy docker endpoint
        exception function functions git golang html implement import javascript java json kubernetes lambda library
        linux loop method module mysql null parser pointer postgres program programming python query react recursion
        refactor regex rust script segfault sql stack stacktrace struct syntax traceback typescript unittest variable
        xml yaml
        funktion programm fonction programme programa función código
    """,
    "math_words": """
        algebra arithmetic average calculate combinatorics compute cosine derivative determinant divide divisible
        eigenvalue equation equations factorial formula fraction geometry graph hypotenuse inequality integer integers
        integral irrational logarithm matrix maximize median minimize modulo multiplied multiply percent percentage
        polynomial prime primes probability quadratic remainder solve sqrt sum theorem triangle variance vector
        berechne gleichung wahrscheinlichkeit calcule équation probabilité calcula ecuación probabilidad
    """,
    "reasoning": """
        analyse analyze assess compare consequences contradiction critique deduce derive diagnose disprove evaluate
        explain explanation hypothesis hypothetical imply infer inference justify logic logical proof prove puzzle
        rationale reason reasoning riddle strategy tradeoff tradeoffs why
        warum erkläre beweise vergleiche begründe pourquoi explique démontre porque explica demuestra compara justifica
    """,
    "constraints": """
        always each ensure every exactly except exclude include maximum minimum must never only required requirement
        requirements shall should strictly unless within without
        muss genau nur mindestens höchstens ohne doit exactement seulement sans debe exactamente solamente
    """,
    "steps": """
        afterwards begin finally first following lastly outline phase plan roadmap steps step subsequently
        then
        zuerst dann schließlich schritt schritte ensuite enfin étape étapes primero luego finalmente paso pasos
    """,
    "translation": """
        translate translated translation translating
        übersetze übersetzung traduis traduire traduction traduce traducir traducción
    """,
    "summary": """
        abstract condense digest gist overview recap shorten summaries summarise summarize summary tldr
        zusammenfassung résumé resumen
    """,
    "extraction": """
        categorise categorize classification classify detect entities entity extract extraction identify keywords label
        labels parse sentiment tag
        klassifiziere extrahiere extrais classifie extrae clasifica
    """,
    "writing": """
        article ballad blog brainstorm compose creative dialogue draft email essay fiction haiku headline joke letter
        lyrics newsletter novel paraphrase poem poetry proofread rephrase rewrite rhyme slogan speech story tweet write
        schreibe gedicht écris poème escribe poema
    """,
}
UNSPACED: Final[Mapping[str, str]] = {
    "code_words": "代码 函数 程序",
    "math_words": "计算 方程 概率",
    "reasoning": "为什么 证明 分析 解释",
    "constraints": "必须 不要",
    "steps": "首先 步骤",
    "translation": "翻译",
    "summary": "总结 摘要",
    "extraction": "提取 分类",
    "writing": "写",
}
"""Found anywhere in a text, for a script that writes no spaces."""
