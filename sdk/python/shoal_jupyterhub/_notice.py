"""What a page of notebooks shows of Shoal's warnings: a bar with what its user was told last.

The agent keeps that in a file for each user, and the server hands the file out as one of the extension's own. The same
few lines are an extension of notebooks and of JupyterLab; they need nothing but the browser.
"""

from __future__ import annotations

WATCH = """\
function watch(url) {
	var last = '';
	function show(said) {
		var bar = document.createElement('div'), close = document.createElement('button');
		bar.id = 'shoal-notice';
		bar.setAttribute('role', 'alert');
		bar.style.cssText = 'position:fixed;left:0;right:0;bottom:0;z-index:100000;padding:10px 16px;background:#fff3cd;color:#222;border-top:1px solid #b80;font:14px sans-serif';
		bar.textContent = said.text;
		close.textContent = 'Close';
		close.style.cssText = 'margin-left:16px';
		close.onclick = function () { bar.remove(); };
		bar.appendChild(close);
		var former = document.getElementById(bar.id);
		if (former) former.remove();
		document.body.appendChild(bar);
	}
	function look() {
		fetch(url + '?no_track_activity=1', {credentials: 'same-origin', cache: 'no-store'}).then(function (answer) {
			return answer.ok ? answer.json() : {};
		}).then(function (said) {
			if (said.text && said.at !== last && Date.now() - Date.parse(said.at) < 7200000) {
				last = said.at;
				show(said);
			}
		}, function () {});
	}
	look();
	setInterval(look, 20000);
}
"""

NOTEBOOK = f"""\
define(function () {{
{WATCH}	return {{load_ipython_extension: function () {{
		watch(document.body.getAttribute('data-base-url') + 'nbextensions/shoal/notice.json');
	}}}};
}});
"""

LAB = f"""\
(function () {{
{WATCH}(window._JUPYTERLAB = window._JUPYTERLAB || {{}})['shoal-notice'] = {{
	init: function () {{}},
	get: function () {{
		return Promise.resolve(function () {{
			return {{default: {{id: 'shoal-notice:plugin', autoStart: true, activate: function () {{
				var settings = JSON.parse(document.getElementById('jupyter-config-data').textContent);
				watch(settings.baseUrl + 'lab/extensions/shoal-notice/static/notice.json');
			}}}}}};
		}});
	}}
}};
}})();
"""

# $s is the user's directory on the machine's own disk.
SCRIPT = f"""\
n=$s/jupyter/nbextensions/shoal l=$s/jupyter/labextensions/shoal-notice
mkdir -p "$n" "$l/static" "$s/config/nbconfig"
cat > "$n/notice.js" <<'END'
{NOTEBOOK}END
cat > "$l/static/notice.js" <<'END'
{LAB}END
cat > "$l/package.json" <<'END'
{{"name": "shoal-notice", "version": "1.0.0", "jupyterlab": {{"extension": true, "_build": {{"load": "static/notice.js", "extension": "./extension"}}}}}}
END
echo '{{"load_extensions": {{"shoal/notice": true}}}}' > "$s/config/nbconfig/common.json"
ln -sfn "/run/shoal/notices/$(id -u)" "$n/notice.json"
ln -sfn "/run/shoal/notices/$(id -u)" "$l/static/notice.json"
export JUPYTER_PATH="$s/jupyter${{JUPYTER_PATH:+:$JUPYTER_PATH}}"
"""
