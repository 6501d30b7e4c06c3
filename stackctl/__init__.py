"""The program that runs on the droplet, and that releases, backs up, restores and reports.

stackctl uses only the standard library.

`deploys` imports from this package the code that both sides share, such as paths and manifests. stackctl never imports
`deploys`.
"""
