# SPDX-License-Identifier: Apache-2.0
"""A page in the browser that shows a run while it goes, and takes corrections.

``protocol.py`` says what server and page tell each other; the page, plain HTML, CSS and JavaScript, is in ``page``.
"""
