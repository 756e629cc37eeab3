"""`python -m colabcnn COMMAND`."""

import sys

from colabcnn.cli import main

sys.exit(main())
