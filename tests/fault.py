"""A panic becomes an error, on whichever thread it is, and the next call works: `make fault`.

Needs an extension with the feature `fault`, which no wheel has.
"""

import numpy as np
import pytest

import crossent
import crossent.functional as F
from crossent import _core


def work():
    """A call that threads share: every loss is log 1000."""
    x, y = np.zeros((2000, 1000), np.float32), np.arange(2000) % 1000
    loss, grad = F.cross_entropy(x, y, return_grad=True)
    np.testing.assert_allclose(loss, np.log(1000), rtol=1e-6)
    return loss.tobytes() + grad.tobytes()


def main():
    crossent.set_num_threads(3)
    want = work()
    for turn in range(50):
        message = r"crossent failed inside \(on purpose\); please report this"
        with pytest.raises(RuntimeError, match=message):
            _core._panic(turn % 2 == 0)
        assert work() == want
    print("50 panics became errors, and the call after each was right")


if __name__ == "__main__":
    main()
