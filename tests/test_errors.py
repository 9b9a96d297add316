from catalign.errors import UserError


def test_a_mistake_is_one_line_of_where_what_and_mend() -> None:
    assert str(UserError("is gone", where="a/b", mend="look elsewhere")) == "a/b: is gone; look elsewhere"
    assert str(UserError("is gone")) == "is gone"
    assert str(UserError("two\n  lines", where=3, mend="a\tb")) == "3: two lines; a b"
