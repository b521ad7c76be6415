"""Makes Hydra compose twice as fast in processes, or their forks, that compose many times."""

import pickle
from copy import copy
from itertools import takewhile


def hasten():
    """Makes Hydra read the files that it and prunebench ship only once, and merge its own once.

    Users' files may change between two compositions, and are read each time.
    """
    from hydra._internal import defaults_list
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository

    from prunebench.options.files import conf_dir

    defaults_list._create_interpolation_map = where_asked(defaults_list._create_interpolation_map)
    ConfigRepository.load_config = read_once(ConfigRepository.load_config, str(conf_dir()))
    ConfigRepository.__deepcopy__ = lambda self, _: copy(self)  # it is never changed in place
    merge_once(ConfigLoaderImpl, str(conf_dir()))


def sources_of(repository, shipped):
    """Returns where `repository` reads; None if a user's folder is among its sources."""
    sources = tuple((source.scheme(), source.path) for source in repository.get_sources())
    ours = all(scheme != "file" or folder == shipped for scheme, folder in sources)
    return sources if ours else None


def read_once(load, shipped):
    """Returns `load` with a cache, as bytes, since each composition changes what it is given."""
    from hydra.core.config_store import ConfigStore

    read = {}

    def load_config(self, config_path):
        if (sources := sources_of(self, shipped)) is None:
            return load(self, config_path)
        hydra = ConfigStore.instance().repo["hydra"]
        plugins = *hydra["launcher"], *hydra["sweeper"]  # a test may hide some
        if (key := (sources, plugins, config_path)) not in read:
            if (found := load(self, config_path)) is None:
                return None
            read[key] = pickle.dumps(found)
        return pickle.loads(read[key])

    return load_config


def where_asked(create):
    """Returns `create` without its work where a defaults list contains no interpolation.

    It makes the map in which interpolations are looked up.
    """

    def create_map(overrides, defaults, self_added):
        asked = any(default.is_interpolation() for default in defaults if not default.is_self())
        return create(overrides, defaults, self_added) if asked else None

    return create_map


def merge_once(loader, shipped):
    """Makes `loader` start from the merged result of Hydra's own defaults, which come first.

    The other configurations are first merged among themselves: each merge goes through everything
    that it merges into, most of which is Hydra's own.
    """
    from omegaconf import flag_override
    from omegaconf.errors import OmegaConfBaseException

    merge, place = loader._compose_config_from_defaults_list, loader._load_single_config
    merged, placed = {}, {}

    def merge_all(self, defaults, repo):
        own = [*takewhile(lambda default: default.config_path.startswith("hydra/"), defaults)]
        if (sources := sources_of(repo, shipped)) is None:
            return merge(self, defaults, repo)
        key = (sources, *((default.config_path, default.package) for default in own))
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, own, repo))
        whole, ours = pickle.loads(merged[key]), merge(self, defaults[len(own) :], repo)
        try:
            with flag_override(whole, "no_deepcopy_set_nodes", True):
                whole.merge_with(ours)
        except OmegaConfBaseException:
            return merge(self, defaults, repo)  # raises again, and names the file
        return whole

    def place_one(self, default, repo):
        if (sources := sources_of(repo, shipped)) is None:
            return place(self, default, repo)
        key = (sources, default.config_path, default.package, default.primary)
        if key not in placed:
            placed[key] = pickle.dumps(place(self, default, repo))
        return pickle.loads(placed[key])

    loader._compose_config_from_defaults_list, loader._load_single_config = merge_all, place_one
