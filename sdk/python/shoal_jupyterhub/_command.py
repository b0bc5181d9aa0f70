"""What runs on the machine: a short script that puts caches and databases on the machine's own disk, then the server.

SQLite and file locks break or crawl on network shares, and homes lie on such. So the kernels' history, the database of
notebooks' signatures, runtime files and caches go to a directory of the user's own on the machine. Notebooks, settings
and installed kernels stay in the home.
"""

from __future__ import annotations

import shlex
from typing import Iterable

from . import _notice

# $s: the directory, empty where none can be made: then all stays as it was. Another user may have taken the name
# in /var/tmp, where everybody writes: a directory that is not hers, or a link, is not used.
SCRATCH = """\
s=${SHOAL_LOCAL:-/var/tmp}/jupyter-$(id -u)
(umask 077; mkdir "$s") 2>/dev/null
if [ -d "$s" ] && [ ! -L "$s" ] && [ -O "$s" ]; then chmod 700 "$s"; else s=$(umask 077; mktemp -d /var/tmp/jupyter-XXXXXXXXXX) || s=; fi
"""

# IPython keeps its database beside the user's settings: a directory in which the settings are links to hers.
IPYTHON = """\
link() {
	for f in "$1"/* ; do
		n=${f##*/}
		case $n in profile_*|history.sqlite*|security|pid|log) continue ;; esac
		[ -e "$f" ] || continue
		[ -L "$2/$n" ] || { rm -f "$2/$n" "$2/$n/README" || rmdir "$2/$n"; } 2>/dev/null
		[ -e "$2/$n" ] || ln -s "$f" "$2/$n"
	done
}
mine=${IPYTHONDIR:-$HOME/.ipython}
mkdir -p "$s/ipython/profile_default" "$mine/profile_default/startup" "$mine/profile_default/db"
link "$mine" "$s/ipython"
for p in "$mine"/profile_*; do
	[ -d "$p" ] || continue
	mkdir -p "$s/ipython/${p##*/}"
	link "$p" "$s/ipython/${p##*/}"
done
"""

# Classes that a server does not have are ignored: file ids and shared documents are of newer JupyterLabs.
SETTINGS = """\
mkdir -p "$s/config" "$s/runtime" "$s/cache"
chmod 700 "$s/runtime"
cat > "$s/config/jupyter_config.json" <<END
{
  "NotebookNotary": {"db_file": "$s/nbsignatures.db"},
  "BaseFileIdManager": {"db_path": "$s/file_id_manager.db"},
  "SQLiteYStore": {"db_path": "$s/ystore.db"}
}
END
export JUPYTER_CONFIG_PATH="$s/config${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}" JUPYTER_RUNTIME_DIR="$s/runtime"
export XDG_CACHE_HOME="$s/cache" IPYTHONDIR="$s/ipython"
"""

SERVER = """\
export JUPYTERHUB_SERVICE_URL="http://127.0.0.1:$SHOAL_PORT${JUPYTERHUB_SERVICE_PREFIX:-/}"
cd "${HOME:-/}" || exit
if ! command -v PROGRAM >/dev/null; then
	echo PROGRAM 'is not on this machine: install jupyterhub and python3-notebook (or jupyterlab) in the image of the pool' >&2
	exit 127
fi
exec COMMAND
"""


def command(words: Iterable[str], local: bool = True) -> str:
    """The script that starts a server; ``local``: with databases and caches on the machine's own disk."""
    words = list(words)
    server = SERVER.replace("PROGRAM", shlex.quote(words[0])).replace("COMMAND", " ".join(map(shlex.quote, words)))
    return (SCRATCH + 'if [ -n "$s" ]; then\n' + IPYTHON + SETTINGS + _notice.SCRIPT + "fi\n" if local else "") + server
