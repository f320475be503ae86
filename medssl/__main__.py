"""`python -m medssl`, the same as `medssl`."""

from medssl.cli import main

if __name__ == "__main__":
    main()
