"""What pyproject.toml cannot say: folders that lie beside the packages and ship inside one of them.

`experiments.common.shipped` finds them in a checkout as in an installed package.
"""

from setuptools import find_packages, setup

SHIPPED = {"experiments.conf": "conf", "experiments.published": "results/published"}

setup(
    packages=[*find_packages(include=["syncdiffusion*", "baselines*", "experiments*"]), *SHIPPED],
    package_dir=SHIPPED,
    include_package_data=False,
    package_data={
        "syncdiffusion": ["weights/**/*", "*.md", "py.typed"],
        "baselines": ["py.typed"],
        "experiments": ["report/page/*.html", "report/page/*.css", "report/page/*.js", "report/page/vendor/**/*"],
        "experiments.conf": ["**/*.yaml", "**/*.png"],
        "experiments.published": ["*.csv"],
    },
)
