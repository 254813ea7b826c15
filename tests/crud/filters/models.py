"""The shop, under the name by which tests of other folders import it."""

from tests.tables.shop import *  # noqa: F403
