import sys

from shepherd.site.local.command import main

sys.exit(main(sys.argv[1:]))
