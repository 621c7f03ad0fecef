"""Modal's module name: `from minimodal.schedule import Cron`."""

from .policy import Cron as Cron
from .policy import Period as Period
