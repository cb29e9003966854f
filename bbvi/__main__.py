"""`python -m bbvi`: fits a real example, prints what came out and draws it."""

import argparse
import time
from collections.abc import Sequence

from bbvi.examples import eight_schools
from bbvi.fit import fit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration.

    Args:
        arguments: the command line; None takes that of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m bbvi", description=__doc__)
    parser.add_argument("--output", default="bbvi-demo.png", help="picture to write (%(default)s)")
    parser.add_argument("--no-plot", action="store_true", help="draw no picture")
    options = parser.parse_args(arguments)

    print(
        "Fitting eight schools (Rubin 1981): y = mu + tau * eta + noise, non-centred.", flush=True
    )
    example = eight_schools()
    began = time.perf_counter()
    result = fit(example.log_joint, example.init, example.data, support=example.support)
    seconds = time.perf_counter() - began
    print(result.summary())
    print(f"Took {seconds:.1f} s, most of it to compile: a second fit compiles nothing.")
    if options.no_plot:
        return
    try:
        figure = result.plot()
    except ImportError:
        print("No picture, as matplotlib is missing: pip install 'bbvi[plot]'")
        return
    figure.savefig(options.output, dpi=150)
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
