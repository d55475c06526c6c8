"""python -m tagclip.runtime"""

from tagclip.runtime.cli import main

main()
