"""Every term behind one candidate: value, formula, inputs, source and expected error. Computes nothing anew."""

from planner.explain.document import explanation_document
from planner.explain.explanation import Explanation, explain, find_candidate
from planner.explain.terms import Section, Term

__all__ = ["Explanation", "Section", "Term", "explain", "explanation_document", "find_candidate"]
