"""The methods of this package, in the order of the list that users see. A new method adds its line here."""

from __future__ import annotations

from tokcli.methods.agilepruner import agilepruner
from tokcli.methods.aim import aim
from tokcli.methods.aot import aot
from tokcli.methods.balanced import balanced
from tokcli.methods.base import METHODS
from tokcli.methods.center import center
from tokcli.methods.centerclip import centerclip
from tokcli.methods.cluster_merge import cluster_merge
from tokcli.methods.correlation import correlation
from tokcli.methods.divprune import divprune
from tokcli.methods.downsample import downsample
from tokcli.methods.dtd import dtd
from tokcli.methods.dycoke import dycoke
from tokcli.methods.evs import evs
from tokcli.methods.expedit import expedit
from tokcli.methods.fastervlm import fastervlm
from tokcli.methods.fastvid import fastvid
from tokcli.methods.focusui import focusui
from tokcli.methods.folder import folder
from tokcli.methods.fopru import fopru
from tokcli.methods.globalcom2 import globalcom2
from tokcli.methods.grid_uniform import grid_uniform
from tokcli.methods.hired import hired
from tokcli.methods.holitom import holitom
from tokcli.methods.holov import holov
from tokcli.methods.keyframes import keyframes
from tokcli.methods.ktv import ktv
from tokcli.methods.llavolta import llavolta
from tokcli.methods.none import none
from tokcli.methods.norm import norm
from tokcli.methods.pool2d import pool2d
from tokcli.methods.ppe import ppe
from tokcli.methods.prunevid import prunevid
from tokcli.methods.random import random
from tokcli.methods.rlt import rlt
from tokcli.methods.showui import showui
from tokcli.methods.tempme import tempme
from tokcli.methods.temporal_merge import temporal_merge
from tokcli.methods.textmonkey import textmonkey
from tokcli.methods.todre import todre
from tokcli.methods.ts_llava import ts_llava
from tokcli.methods.uniform import uniform
from tokcli.methods.vflowopt import vflowopt
from tokcli.methods.vidcom2 import vidcom2
from tokcli.methods.visiondrop import visiondrop
from tokcli.methods.visionzip import visionzip
from tokcli.methods.vispruner import vispruner
from tokcli.methods.vqtoken import vqtoken
from tokcli.methods.vtc_cls import vtc_cls
from tokcli.methods.zoo_prune import zoo_prune

for _method in (
    none,
    dtd,
    rlt,
    evs,
    vidcom2,
    aim,
    tempme,
    aot,
    temporal_merge,
    keyframes,
    dycoke,
    vqtoken,
    ktv,
    centerclip,
    ts_llava,
    holitom,
    fastvid,
    prunevid,
    folder,
    fastervlm,
    visionzip,
    llavolta,
    divprune,
    ppe,
    hired,
    holov,
    globalcom2,
    expedit,
    cluster_merge,
    vispruner,
    visiondrop,
    textmonkey,
    vtc_cls,
    vflowopt,
    showui,
    focusui,
    todre,
    agilepruner,
    zoo_prune,
    fopru,
    correlation,
    balanced,
    uniform,
    random,
    pool2d,
    grid_uniform,
    center,
    norm,
    downsample,
):
    METHODS.register(_method.name, _method)
