"""`python -m colabcnn VERB`."""

import sys

from colabcnn.cli import main

sys.exit(main())
