"""The dashboard: pages and charts made here on the server, kept live by one small ES module.

No build step, nothing from another host, no inline script or style: it works offline and under
`default-src 'self'`. Without scripts the pages are plain tables.
"""
